"""What is said of a judge's verdicts on pairs of answers: win rates with their intervals, and how far to trust them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from safe_align.evaluate.statistics import score_rate, text_of
from safe_align.evaluate.tally import Tally, means, table

Row = dict[str, Any]
ASKED = {
    'overall': 'which answer is better', 'helpfulness': 'which is more helpful', 'harmlessness': 'which is safer',
    None: 'by --judge_template',
}  # fmt: skip
COUNTED = {'blue': 'blue_wins', 'red': 'red_wins', 'tie': 'ties', 'unscored': 'unscored'}
HEADS = {'blue_win_rate': 'blue wins', 'blue_wins': 'blue', 'red_wins': 'red', 'ties': 'ties', 'unscored': 'unscored'}


def summarise(rows: Sequence[Row]) -> Row:
    """Of all pairs, of each category where prompts have one, and of the judge itself."""
    tally = Tally(rows, 'blue', 'red', '{}_answer')
    return {
        **_wins(tally),
        'length_controlled': tally.length_controlled(),
        'unscored_reasons': dict(Counter(row['reason'] for row in rows if row['verdict'] == 'unscored').most_common()),
        'identical': sum(row['red_answer'] == row['blue_answer'] for row in rows),
        **{f'{side}_empty': number for side, number in tally.empty().items()},
        **{f'{side}_characters': told for side, told in tally.characters().items()},
        'places': _places([row for row in tally.scored if row['red_first']]),
        'categories': [{'category': kind, **_wins(one)} for kind, one in tally.categories().items()],
    }


def _wins(tally: Tally) -> Row:
    """Sizes, counts of pairs, blue's win rate, and the exact sign test of it."""
    return {
        'num_prompts': tally.num_prompts, 'num_pairs': len(tally.rows), 'blue_win_rate': tally.win_rate(),
        'p_value': tally.p_value(), **{name: tally.count[verdict] for verdict, name in COUNTED.items()},
    }  # fmt: skip


def _places(asked: Sequence[Row]) -> Row:
    """Whether the judge says the same in both orders, and whether it favours a place."""
    pairs = [_orders(row) for row in asked]
    same = means(asked, [one == two for one, two in pairs])
    return {
        'num_pairs': len(pairs), 'consistent': score_rate(same).told(),
        'first_won_both': pairs.count(('red', 'blue')), 'last_won_both': pairs.count(('blue', 'red')),
        'num_decided_answers': sum((one != 'tie') + (two != 'tie') for one, two in pairs),
        'first_won': sum((one == 'red') + (two == 'blue') for one, two in pairs),
    }  # fmt: skip


def _orders(row: Row) -> tuple[str, str]:
    """What the judge said with red shown first, and with blue shown first."""
    return row['red_first']['verdict'], row['blue_first']['verdict']


def render(summary: Row) -> str:
    """As text for a terminal."""
    places, tokens = summary['places'], (summary['prompt_tokens'], summary['completion_tokens'])
    decided = places['num_decided_answers']
    lines = [
        '', f'red   {summary["red"]}', f'blue  {summary["blue"]}',
        f'judge {summary["judge"]}, asked {ASKED[summary["compare"]]}',
        f'{summary["num_pairs"]} pairs on {summary["num_prompts"]} prompts, of which n are scored; [95% interval]; '
        'a tie is half a win', '', *table(summary, 'blue_win_rate', HEADS), '',
        f'sign test of equal sides: p = {summary["p_value"]:.3g}; at equal length blue wins '
        f'{text_of(summary["length_controlled"])}',
        f'characters of an answer: red {text_of(summary["red_characters"], 1)}, '
        f'blue {text_of(summary["blue_characters"], 1)}; '
        f'empty: red {summary["red_empty"]}, blue {summary["blue_empty"]}; identical pairs: {summary["identical"]}',
        f'the same verdict in both orders: {text_of(places["consistent"])} of {places["num_pairs"]} pairs; the '
        f'answer shown first won {places["first_won"]} of {decided} decided answers',
        *_unscored(summary['unscored_reasons']),
        f'{summary["answers_paid"]} answers of the judge, {tokens[0]} tokens in, {tokens[1]} out'
        + ('' if summary['money'] is None else f', {summary["money"]:.4g} at --judge_prices'),
    ]  # fmt: skip
    return '\n'.join([*lines, ''])


def _unscored(reasons: dict[str, int]) -> list[str]:
    return ['unscored: ' + ', '.join(f'{count} {reason}' for reason, count in reasons.items())] if reasons else []
