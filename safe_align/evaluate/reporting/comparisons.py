"""What evaluations found: two corners in full, and of any other evaluation every number that it gives."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from safe_align.evaluate.reporting.collect import Json, Stage
from safe_align.evaluate.reporting.html import Child, tag
from safe_align.evaluate.reporting.records import link
from safe_align.evaluate.reporting.tables import facts, plain, summary_tables, table
from safe_align.evaluate.reporting.words import interval, is_estimate, number

CELLS = ((True, 'red safe'), (False, 'red unsafe'))


def results_of(stage: Stage) -> list[Child]:
    """Tables of a stage's summary."""
    summary = stage.summary or stage.read('summary.json')
    if not summary:
        return []
    return _corners(summary) if _has_corners(summary) else [*summary_tables(summary)]


def headline(stage: Stage) -> list[Child]:
    """The win rates of two corners, if it has these."""
    summary = stage.summary
    if not _has_corners(summary):
        return []
    wins, safety = summary['blue_wins_reward'], summary['blue_wins_safety']
    red, blue = (PurePath(summary[corner]).name for corner in ('red', 'blue'))
    told = f'{blue} wins against {red} by reward; by safety {number(safety["value"])} {interval(safety)}'
    big = tag('p', f'{number(wins["value"])} {interval(wins)}', class_='verdict')
    return [tag('li', big, tag('p', f'{told}; {_size(summary)}'), link(stage))]


def _has_corners(summary: object) -> bool:
    return isinstance(summary, dict) and {'red', 'blue', 'blue_wins_reward', 'cells'} <= summary.keys()


def _size(summary: Json) -> str:
    samples = summary['num_samples']
    return f'{summary["num_prompts"]} prompts' + (f', {samples} responses each' if samples > 1 else '')


def _corners(summary: Json) -> list[Child]:
    def cell(key: str) -> Child:
        one: Any = summary.get(key)
        return [number(one['value']), ' ', tag('small', interval(one))] if is_estimate(one) else '–'

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
    return [number(one['count']), ' ', tag('small', f'blue wins {number(wins["value"])} {interval(wins)} by reward')]
