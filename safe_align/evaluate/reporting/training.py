"""What a training stage did: its curves, reward against cost, and the multiplier."""

from __future__ import annotations

import re
from typing import Any

from safe_align.evaluate.reporting.axes import Point
from safe_align.evaluate.reporting.charts import Mark, Series, curves, means, path
from safe_align.evaluate.reporting.collect import LARGEST, Stage
from safe_align.evaluate.reporting.html import Child, Markup, tag
from safe_align.evaluate.reporting.words import words

# What a reader looks at first; the other metrics are folded.
FIRST = re.compile(
    r'loss|ptx_loss|accuracy|accuracy_sign|margin|shaped_reward|reward|return|cost(_\d+)?|cost(_\d+)?_unsafe|'
    r'lambda(_\d+)?|episode_cost(_\d+)?|cost_bound(_\d+)?|kl_divergence|entropy|mean_generated_length|cut_off'
)
BOUNDED = re.compile(r'(?:episode_)?cost(?:_bound)?(?:_(\d+))?')  # what a threshold is about
LOOKS = {
    'reward': 'reward',
    'shaped_reward': 'reward',
    'cost': 'cost',
    'episode_cost': 'cost',
    'cost_bound': 'cost',
    'cost_unsafe': 'cost',
}
STOPS, DOTS = 24, 160  # of a path, and around it


def charts_of(stage: Stage) -> list[Child]:
    """Reward against cost where there are both, then a chart a metric, the telling ones open."""
    series = _series(stage.metrics)
    order = FIRST.pattern.split('|')
    first = sorted(filter(FIRST.fullmatch, series), key=lambda name: (_place(name, order), name))
    rest = sorted(series.keys() - set(first))
    parts: list[Child] = [
        *_paths(stage, series),
        tag('div', [_chart(stage, name, series[name]) for name in first], class_='charts'),
    ]
    if rest:
        inner = tag('div', [_chart(stage, name, series[name]) for name in rest], class_='charts')
        parts.append(tag('details', tag('summary', f'{len(rest)} more curve' + 's' * (len(rest) > 1)), inner))
    return parts if series else []


def _place(name: str, order: list[str]) -> int:
    return next(place for place, pattern in enumerate(order) if re.fullmatch(pattern, name))


def _series(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[Point]]]:
    """Points by metric and by where it was measured: 'train', 'eval'."""
    found: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        for key, value in row.items():
            where, _, name = key.rpartition('/')
            if name not in ('step', 'epoch') and _is_number(value) and _is_number(row.get('step')):
                found.setdefault(name, {}).setdefault(where, []).append((row['step'], value))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _chart(stage: Stage, name: str, by_place: dict[str, list[Point]]) -> Markup:
    look = LOOKS.get(name.rstrip('_0123456789'), '')
    series = [
        Series({'train': 'training', 'eval': 'held out'}.get(place, place), points, look, dots=place == 'eval')
        for place, points in sorted(by_place.items(), reverse=True)
    ]
    threshold = _threshold(stage, name)
    return curves(words(name), series, [Mark('threshold', threshold)] if threshold is not None else [])


def _threshold(stage: Stage, name: str) -> float | None:
    """What the mean of a cost must not exceed; None of anything else."""
    found, given = BOUNDED.fullmatch(name), stage.arguments.get('threshold')
    if not found or not isinstance(given, list):
        return None
    number = int(found[1] or 1) - 1
    return given[number] if number < len(given) else None


def _paths(stage: Stage, series: dict[str, dict[str, list[Point]]]) -> list[Markup]:
    """Reward against each cost that has a threshold."""
    rewards = dict(series.get('reward', {}).get('train', []))
    charts = []
    for name in sorted(series):
        threshold, costs = _threshold(stage, name), series[name].get('train', [])
        steps = [(cost, rewards[step]) for step, cost in costs if step in rewards]
        rounds = [point for n, point in enumerate(steps) if n == 0 or point != steps[n - 1]]  # of one, all steps agree
        if re.fullmatch(r'cost(_\d+)?', name) and threshold is not None and len(rounds) > 1:
            way, each = means(rounds, min(STOPS, max(2, len(rounds) // 3)))
            dots, of = means(rounds, DOTS)
            note = f'dots: {_size(of)}, stronger is later; line: {_size(each)}'
            title, mark = f'Reward against {words(name)} over training', Mark('threshold', threshold)
            charts.append(path(title, dots, way, (words(name), 'reward'), mark, note))
    return charts


def _size(each: int) -> str:
    return 'rounds' if each == 1 else f'means of {each} rounds'
