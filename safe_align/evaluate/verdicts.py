"""What is made of verdicts: counts, a win rate with its interval, and HALOs' line of results."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safe_align.bounds import Array
from safe_align.evaluate.length_control import length_controlled
from safe_align.evaluate.statistics import Estimate, mean, score_rate, sign_test
from safe_align.evaluate.tables import aligned
from safe_align.remote.journal import Journal

Row = dict[str, Any]
OUTCOMES = {'candidate': 1.0, 'tie': 0.5, 'baseline': 0.0}
SIDES = ('candidate', 'baseline')


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Of all comparisons, and of each category where rows have one.

    A row has `prompt_id`, the texts `candidate` and `baseline`, `verdict`, and maybe `category`. A tie is half a win,
    and what is unscored counts for nobody. Comparisons of one prompt are averaged first: the prompt is the unit of
    every interval and of the test, and each interval has the number of prompts that it rests on.
    """
    kinds = sorted({row['category'] for row in rows if row.get('category') is not None})
    groups = [{'category': kind, **_of([row for row in rows if row.get('category') == kind])} for kind in kinds]
    return {**_of(rows), 'categories': groups}


def _of(rows: Sequence[Row]) -> dict[str, Any]:
    count = Counter(row['verdict'] for row in rows)
    scored = [row for row in rows if row['verdict'] in OUTCOMES]
    outcomes = _by_prompt(scored, [OUTCOMES[row['verdict']] for row in scored])
    longer = _by_prompt(scored, [len(row['candidate']) - len(row['baseline']) for row in scored])
    lengths = {side: _by_prompt(rows, [len(row[side]) for row in rows]) for side in SIDES}
    prompts, scored_prompts = len(lengths['candidate']), len(outcomes)
    return {
        'num_prompts': prompts, 'num_comparisons': len(rows),
        'wins': count['candidate'], 'ties': count['tie'], 'losses': count['baseline'], 'unscored': count['unscored'],
        'win_rate': _told(score_rate(outcomes), scored_prompts),
        'length_controlled': _told(length_controlled(outcomes, longer).win_rate, scored_prompts),
        'p_value': sign_test(outcomes, np.full_like(outcomes, 0.5)),
        **{f'{side}_characters': _told(mean(lengths[side]), prompts) for side in SIDES},
        **{f'{side}_empty': sum(not row[side] for row in rows) for side in SIDES},
    }  # fmt: skip


def _by_prompt(rows: Sequence[Row], values: Sequence[float]) -> Array:
    """The mean of each prompt's: (P,)."""
    found: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        found.setdefault(row['prompt_id'], []).append(value)
    return np.array([sum(one) / len(one) for one in found.values()], float)


def _told(estimate: Estimate, number: int) -> dict[str, Any]:
    return {**estimate.told(), 'n': number}


def render(summary: dict[str, Any]) -> str:
    """As text for a terminal."""
    heads = ['', 'n', 'wins', 'ties', 'losses', 'unscored', 'win rate', 'at equal length', 'p']
    table = [
        [name, str(group['win_rate']['n']), *(str(group[key]) for key in ('wins', 'ties', 'losses', 'unscored')),
         _cell(group['win_rate']), _cell(group['length_controlled']), f'{group["p_value"]:.3g}']
        for name, group in (('all', summary), *((group['category'], group) for group in summary['categories']))
    ]  # fmt: skip
    judge = [summary['judge'][key] for key in ('name', 'model') if key in summary['judge']]
    long, short = (_cell(summary[f'{side}_characters'], 1) for side in SIDES)
    lines = [
        '', *(f'{who:9} {summary[who]}' for who in SIDES), f'judge     {", ".join(judge)}', '',
        f'{summary["num_comparisons"]} comparisons on {summary["num_prompts"]} prompts, of which n are scored; '
        '[95% interval]; a tie is half a win', '', *aligned([heads, *table]), '',
        f'characters: candidate {long}, baseline {short}; n = {summary["candidate_characters"]["n"]}',
    ]  # fmt: skip
    empty = [f'{summary[f"{side}_empty"]} of the {side}' for side in SIDES if summary[f'{side}_empty']]
    lines += [f'empty answers: {", ".join(empty)}'] if empty else []
    return '\n'.join([*lines, ''])


def _cell(told: dict[str, Any], digits: int = 3) -> str:
    if told['value'] is None:
        return 'n/a'
    interval = '' if told['low'] is None else f' [{told["low"]:.{digits}f}, {told["high"]:.{digits}f}]'
    return f'{told["value"]:.{digits}f}{interval}'


def result_line(
    rows: Sequence[Row], summary: dict[str, Any], *, seed: int, exp_name: str, config: dict[str, Any]
) -> dict[str, Any]:
    """HALOs' line of results, and behind it what it lacks; lengths are in characters, one a comparison."""
    wins = {'candidate': summary['wins'], 'baseline': summary['losses']}
    line = {
        'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'), 'total': len(rows),
        'seed': seed, 'exp_name': exp_name, 'judge': summary['judge'].get('model', summary['judge']['name']),
        **{
            side: {'name': summary[side], 'wins': wins[side], 'lengths': [len(row[side]) for row in rows]}
            for side in SIDES
        },
        'config': config, 'ties': summary['ties'], 'unscored': summary['unscored'], 'win_rate': summary['win_rate'],
        'p_value': summary['p_value'], 'length_unit': 'characters',
    }  # fmt: skip
    return json.loads(json.dumps(line))


def append(path: str | Path, line: Row) -> None:
    """Add a line of results to a file that runs share, unless it is there, with another date, of a run that was killed.

    Raises:
        UserError: it cannot be written, or holds something else than lines of JSON.
    """
    with Journal(Path(path).expanduser(), print, waits=True) as results:
        if not any({**row, 'date': line['date']} == line for row in results.rows()):
            results.append([line])
