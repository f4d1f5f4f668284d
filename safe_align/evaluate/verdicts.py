"""What is made of verdicts: counts, a win rate with its interval, and HALOs' line of results."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safe_align.evaluate.statistics import text_of
from safe_align.evaluate.tally import Tally, table
from safe_align.remote.journal import Journal

Row = dict[str, Any]
SIDES = ('candidate', 'baseline')
HEADS = {
    'wins': 'wins', 'ties': 'ties', 'losses': 'losses', 'unscored': 'unscored', 'win_rate': 'win rate',
    'length_controlled': 'at equal length', 'p_value': 'p',
}  # fmt: skip


def summarise(rows: Sequence[Row]) -> Row:
    """Of all comparisons, and of each category where rows have one; each interval has its number of prompts.

    A row has `prompt_id`, the texts `candidate` and `baseline`, `verdict`, and maybe `category`.
    """
    tally = Tally(rows, *SIDES)
    return {
        **_of(tally), 'categories': [{'category': kind, **_of(one)} for kind, one in tally.categories().items()]
    }  # fmt: skip


def _of(tally: Tally) -> Row:
    count = tally.count
    return {
        'num_prompts': tally.num_prompts, 'num_comparisons': len(tally.rows),
        'wins': count['candidate'], 'ties': count['tie'], 'losses': count['baseline'], 'unscored': count['unscored'],
        'win_rate': tally.win_rate(), 'length_controlled': tally.length_controlled(), 'p_value': tally.p_value(),
        **{f'{side}_characters': told for side, told in tally.characters().items()},
        **{f'{side}_empty': number for side, number in tally.empty().items()},
    }  # fmt: skip


def render(summary: Row) -> str:
    """As text for a terminal."""
    judge = [summary['judge'][key] for key in ('name', 'model') if key in summary['judge']]
    long, short = (text_of(summary[f'{side}_characters'], 1) for side in SIDES)
    lines = [
        '', *(f'{who:9} {summary[who]}' for who in SIDES), f'judge     {", ".join(judge)}', '',
        f'{summary["num_comparisons"]} comparisons on {summary["num_prompts"]} prompts, of which n are scored; '
        '[95% interval]; a tie is half a win', '', *table(summary, 'win_rate', HEADS), '',
        f'characters: candidate {long}, baseline {short}; n = {summary["candidate_characters"]["n"]}',
    ]  # fmt: skip
    empty = [f'{summary[f"{side}_empty"]} of the {side}' for side in SIDES if summary[f'{side}_empty']]
    lines += [f'empty answers: {", ".join(empty)}'] if empty else []
    return '\n'.join([*lines, ''])


def result_line(rows: Sequence[Row], summary: Row, *, seed: int, exp_name: str, config: Row) -> Row:
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
