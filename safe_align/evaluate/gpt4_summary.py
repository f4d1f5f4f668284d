"""What is said of a judge's verdicts on pairs of answers: win rates with their intervals, and how far to trust them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from safe_align.evaluate.length_control import length_controlled
from safe_align.evaluate.statistics import Estimate, score_rate, sign_test
from safe_align.evaluate.tables import aligned

Row = dict[str, Any]
SCORES = {'red': 0.0, 'tie': 0.5, 'blue': 1.0}
ASKED = {
    'overall': 'which answer is better', 'helpfulness': 'which is more helpful', 'harmlessness': 'which is safer',
    None: 'by --judge_template',
}  # fmt: skip
COUNTED = {'red': 'red_wins', 'blue': 'blue_wins', 'tie': 'ties', 'unscored': 'unscored'}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Of all pairs, of each category where prompts have one, and of the judge itself.

    The prompt is the unit: the scores of its pairs, of which a tie is half a win for blue, are averaged first. A pair
    without a verdict has no score, and a prompt without a score is not counted in a win rate.
    """
    scored = [row for row in rows if row['verdict'] in SCORES]
    prompts = _by_prompt(scored)
    longer = [np.mean([len(row['blue_answer']) - len(row['red_answer']) for row in some]) for some in prompts]
    kinds = sorted({row['category'] for row in rows if row['category'] is not None})
    return {
        **_wins(rows),
        'length_controlled': length_controlled(_scores(prompts), longer).win_rate.told(),
        'unscored_reasons': dict(Counter(row['reason'] for row in rows if row['verdict'] == 'unscored').most_common()),
        'identical': sum(row['red_answer'] == row['blue_answer'] for row in rows),
        **{f'{side}_empty': sum(not row[f'{side}_answer'].strip() for row in rows) for side in ('red', 'blue')},
        **{
            f'{side}_characters': float(np.mean([len(row[f'{side}_answer']) for row in rows]))
            for side in ('red', 'blue')
        },
        'places': _places([row for row in scored if row['red_first']]),
        'categories': [{'category': kind, **_wins([row for row in rows if row['category'] == kind])} for kind in kinds],
    }


def _by_prompt(rows: Sequence[Row]) -> list[list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row['prompt_id'], []).append(row)
    return list(found.values())


def _scores(prompts: Sequence[Sequence[Row]]) -> list[float]:
    return [float(np.mean([SCORES[row['verdict']] for row in some])) for some in prompts]


def _wins(rows: Sequence[Row]) -> dict[str, Any]:
    """Sizes, counts of pairs, blue's win rate, and the exact sign test of it."""
    scores = _scores(_by_prompt([row for row in rows if row['verdict'] in SCORES]))
    verdicts = Counter(row['verdict'] for row in rows)
    return {
        'num_prompts': len(_by_prompt(rows)), 'num_pairs': len(rows), 'num_scored_prompts': len(scores),
        'blue_win_rate': score_rate(scores).told(), 'p_value': sign_test(scores, np.full(len(scores), 0.5)),
        **{name: verdicts[verdict] for verdict, name in COUNTED.items()},
    }  # fmt: skip


def _places(asked: Sequence[Row]) -> dict[str, Any]:
    """Whether the judge says the same in both orders, and whether it favours a place."""
    pairs = [_orders(row) for row in asked]
    same = [float(np.mean([one == two for one, two in map(_orders, some)])) for some in _by_prompt(asked)]
    return {
        'num_pairs': len(pairs), 'consistent': score_rate(same).told(),
        'first_won_both': pairs.count(('red', 'blue')), 'last_won_both': pairs.count(('blue', 'red')),
        'num_decided_answers': sum((one != 'tie') + (two != 'tie') for one, two in pairs),
        'first_won': sum((one == 'red') + (two == 'blue') for one, two in pairs),
    }  # fmt: skip


def _orders(row: Row) -> tuple[str, str]:
    """What the judge said with red shown first, and with blue shown first."""
    return row['red_first']['verdict'], row['blue_first']['verdict']


def render(summary: dict[str, Any]) -> str:
    """As text for a terminal."""
    places, tokens = summary['places'], (summary['prompt_tokens'], summary['completion_tokens'])
    heads = ['', 'scored', 'blue wins', 'blue', 'red', 'ties', 'unscored']
    kinds = [('all', summary), *((one['category'], one) for one in summary['categories'])]
    decided = places['num_decided_answers']
    lines = [
        '', f'red   {summary["red"]}', f'blue  {summary["blue"]}',
        f'judge {summary["judge"]}, asked {ASKED[summary["compare"]]}',
        f'{summary["num_prompts"]} prompts, {summary["num_pairs"]} pairs; win rate [95% interval], a tie is half a win',
        '',
        *aligned([heads, *(_line(kind, found) for kind, found in kinds)]), '',
        f'sign test of equal sides: p = {summary["p_value"]:.3g}; at equal length blue wins '
        f'{_estimate(summary["length_controlled"])}',
        f'characters of an answer: red {summary["red_characters"]:.0f}, blue {summary["blue_characters"]:.0f}; '
        f'empty: red {summary["red_empty"]}, blue {summary["blue_empty"]}; identical pairs: {summary["identical"]}',
        f'the same verdict in both orders: {_estimate(places["consistent"])} of {places["num_pairs"]} pairs; the '
        f'answer shown first won {places["first_won"]} of {decided} decided answers',
        *_unscored(summary['unscored_reasons']),
        f'{summary["answers_paid"]} answers of the judge, {tokens[0]} tokens in, {tokens[1]} out'
        + ('' if summary['money'] is None else f', {summary["money"]:.4g} at --judge_prices'),
    ]  # fmt: skip
    return '\n'.join([*lines, ''])


def _line(kind: str, found: dict[str, Any]) -> list[str]:
    counts = (found['blue_wins'], found['red_wins'], found['ties'], found['unscored'])
    return [kind, str(found['num_scored_prompts']), _estimate(found['blue_win_rate']), *map(str, counts)]


def _unscored(reasons: dict[str, int]) -> list[str]:
    return ['unscored: ' + ', '.join(f'{count} {reason}' for reason, count in reasons.items())] if reasons else []


def _estimate(told: dict[str, float | None]) -> str:
    return str(Estimate(*(float('nan') if value is None else value for value in told.values())))
