"""Games of two sides, counted: who won, how often with what interval, and how long their answers are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from safe_align.bounds import Array
from safe_align.evaluate.length_control import length_controlled
from safe_align.evaluate.statistics import Estimate, by_prompt, mean, score_rate, sign_test, text_of
from safe_align.evaluate.tables import aligned

Row = dict[str, Any]


class Tally:
    """Games of a side against another; those of one prompt are averaged first, as the prompt is the unit.

    Args:
        rows: each with its `prompt_id`, maybe its `category`, and a `verdict`: the side that won, 'tie', which is half
            a win, or something else, which counts for nobody.
        side: whose wins are counted.
        other: the one that it met.
        answer: of a side's name, the key of its answer in a row.
    """

    def __init__(self, rows: Sequence[Row], side: str, other: str, answer: str = '{}') -> None:
        self.rows, self.sides, self._answer = rows, (side, other), answer
        outcomes = {side: 1.0, 'tie': 0.5, other: 0.0}
        self.scored = [row for row in rows if row['verdict'] in outcomes]
        self.count = Counter(row['verdict'] for row in rows)
        self.outcomes = means(self.scored, [outcomes[row['verdict']] for row in self.scored])
        self.num_prompts = len({row['prompt_id'] for row in rows})

    def win_rate(self) -> Row:
        """Of the prompts with a score, whose number is `n`."""
        return _told(score_rate(self.outcomes), self.outcomes)

    def length_controlled(self) -> Row:
        """The win rate as it would be were both answers of one length."""
        one, two = (self._lengths(self.scored, side) for side in self.sides)
        return _told(length_controlled(self.outcomes, one - two).win_rate, self.outcomes)

    def p_value(self) -> float:
        """The exact sign test of sides that win as often."""
        return sign_test(self.outcomes, np.full_like(self.outcomes, 0.5))

    def characters(self) -> dict[str, Row]:
        """Of an answer, by the side."""
        lengths = {side: self._lengths(self.rows, side) for side in self.sides}
        return {side: _told(mean(one), one) for side, one in lengths.items()}

    def empty(self) -> dict[str, int]:
        """How many answers say nothing, by the side."""
        return {side: sum(not row[self._answer.format(side)].strip() for row in self.rows) for side in self.sides}

    def categories(self) -> dict[str, Tally]:
        """The games of each kind of prompt that rows name."""
        kinds = sorted({row['category'] for row in self.rows if row.get('category') is not None})
        return {
            kind: Tally([row for row in self.rows if row.get('category') == kind], *self.sides, self._answer)
            for kind in kinds
        }

    def _lengths(self, rows: Sequence[Row], side: str) -> Array:
        return means(rows, [len(row[self._answer.format(side)]) for row in rows])


def means(rows: Sequence[Row], values: Sequence[float]) -> Array:
    """Of one value a row, the mean of each prompt's: (P,)."""
    sums, counts = by_prompt([row['prompt_id'] for row in rows], values)
    return sums / counts


def _told(estimate: Estimate, values: Array) -> Row:
    return {**estimate.told(), 'n': len(values)}


def table(summary: Row, rate: str, heads: Mapping[str, str]) -> list[str]:
    """Lines, one for all games and one for each category.

    Args:
        summary: counts, estimates and a p-value by name, and the same of each of its `categories`.
        rate: name of the win rate, whose `n` is the first column.
        heads: of the other columns, by the names in the summary.
    """
    groups = [('all', summary), *((group['category'], group) for group in summary['categories'])]
    rows = [[kind, str(group[rate]['n']), *(_cell(group[name]) for name in heads)] for kind, group in groups]
    return aligned([['', 'n', *heads.values()], *rows])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:.3g}'
    return str(value) if isinstance(value, int) else text_of(value)
