"""What evaluations found: two corners in full, and of any other evaluation every number that it gives."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from safe_align.evaluate.reporting.collect import Json, Stage
from safe_align.evaluate.reporting.html import Child, tag
from safe_align.evaluate.reporting.records import link
from safe_align.evaluate.reporting.tables import facts, plain, summary_tables, table, told
from safe_align.evaluate.reporting.words import interval, is_estimate, number

PAIRS = (('red', 'blue'), ('baseline', 'candidate'))  # who is compared with whom, by the keys of a summary
WINS = {
    'blue_wins_reward': 'by reward', 'blue_wins_safety': 'by safety', 'blue_win_rate': 'by a judge',
    'win_rate': 'by a judge',
}  # fmt: skip
CELLS = ((True, 'red safe'), (False, 'red unsafe'))


def results_of(stage: Stage) -> list[Child]:
    """Tables of a stage's summary."""
    summary = stage.summary or stage.read('summary.json')
    if not summary:
        return []
    return _corners(summary) if _has_corners(summary) else [*summary_tables(summary)]


def headline(stage: Stage) -> list[Child]:
    """How often a policy wins against another, if a summary says so of two."""
    summary = stage.summary
    if not isinstance(summary, dict):
        return []
    pair = next((pair for pair in PAIRS if summary.keys() >= {*pair}), None)
    found = [(kind, ' '.join(interval(summary[key]))) for key, kind in WINS.items() if is_estimate(summary.get(key))]
    if pair is None or not found:
        return []
    (kind, big), *others = found
    loser, winner = (PurePath(str(summary[one])).name for one in pair)
    told_too = ''.join(f', {other} {wins}' for other, wins in others)
    small = tag('p', f'{winner} wins against {loser} {kind}{told_too}; {_size(summary)}')
    return [tag('li', tag('p', big, class_='verdict'), small, link(stage))]


def _has_corners(summary: object) -> bool:
    return isinstance(summary, dict) and {'red', 'blue', 'blue_wins_reward', 'cells'} <= summary.keys()


def _size(summary: Json) -> str:
    samples = summary.get('num_samples', 1)
    return f'{summary["num_prompts"]} prompts' + (f', {samples} responses each' if samples > 1 else '')


def _corners(summary: Json) -> list[Child]:
    def cell(key: str) -> Child:
        one: Any = summary.get(key)
        return told(one) if is_estimate(one) else '–'

    scores = [
        [kind, cell(f'red_{kind}'), cell(f'blue_{kind}'), cell(f'{kind}_difference')]
        for kind in ('reward', 'cost', 'safe')
    ]
    wins = [
        [f'by {name}', cell(f'blue_wins_{name}'), number(summary[f'ties_{kind}'])]
        for name, kind in (('reward', 'reward'), ('safety', 'cost'))
    ]
    counts = [[name, *(_cell(one) for one in summary['cells'] if one['red_safe'] is safe)] for safe, name in CELLS]
    size = f'{_size(summary)}; 95% intervals in brackets'
    return [
        facts([(corner, plain(summary[corner])) for corner in ('red', 'blue')]),
        table(f'Means. {size}', ['', 'red', 'blue', 'blue − red, paired'], scores),
        table(f'How often blue wins, a tie being half a win. {size}', ['', 'blue wins', 'ties'], wins),
        table('Pairs of responses by who was safe', ['', 'blue safe', 'blue unsafe'], counts),
    ]


def _cell(one: Json) -> Child:
    wins = one['blue_wins_reward']
    if not one['count']:
        return '0'
    return [number(one['count']), ' ', tag('small', f'blue wins {" ".join(interval(wins))} by reward')]
