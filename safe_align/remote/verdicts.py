"""Verdicts of a judge on pairs: read from what it says, combined over both orders, counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

VERDICT = r'\[\[([ABC])\]\]'
Opinion = Literal['first', 'second', 'tie']


class Verdict(NamedTuple):
    """What came of a pair, and what the judge said with `first` shown first and shown last; None if no verdict."""

    result: Literal['first', 'second', 'tie', 'abstain']
    as_given: Opinion | None
    swapped: Opinion | None


class Said(NamedTuple):
    """What a judge said to one question.

    Args:
        text: with its reasons and its verdict.
        is_finished: whether it came to an end.
        refusal: why there is no text, where the server says so.
    """

    text: str
    is_finished: bool = True
    refusal: str | None = None

    @property
    def verdict(self) -> Literal['A', 'B', 'C'] | None:
        """The one that it gives."""
        return None if self.refusal else verdict_in(self.text)

    @property
    def lacks(self) -> str | None:
        """Why there is no verdict; None if there is one."""
        if self.verdict is not None:
            return None
        if self.refusal or not self.text.strip():
            return self.refusal or 'empty answer'
        if re.search(VERDICT, self.text):
            return 'several verdicts'
        return 'no verdict' if self.is_finished else 'cut off before a verdict'


def verdict_in(text: str) -> Literal['A', 'B', 'C'] | None:
    """The one verdict in what a judge says; None if there is none, or there are different ones."""
    found = set(re.findall(VERDICT, text))
    return found.pop() if len(found) == 1 else None


def combine(as_given: str, swapped: str) -> Verdict:
    """The verdict from what the judge said of (first, second) as (A, B), and of (second, first)."""
    return of_both(verdict_in(as_given), verdict_in(swapped))


def of_both(as_given: str | None, swapped: str | None) -> Verdict:
    """As `combine`, from the letters that the judge gave."""
    named: dict[str | None, Opinion] = {'A': 'first', 'B': 'second', 'C': 'tie'}
    other: dict[str | None, Opinion] = {'A': 'second', 'B': 'first', 'C': 'tie'}
    one, two = named.get(as_given), other.get(swapped)
    if one is None or two is None:
        return Verdict('abstain', one, two)
    return Verdict(one if one == two else 'tie', one, two)


def count(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How many pairs went which way; shares are of the pairs with two verdicts, None if there are none."""
    results = Counter(verdict.result for verdict in verdicts)
    scored = [verdict for verdict in verdicts if verdict.result != 'abstain']

    def share(as_given: Opinion, swapped: Opinion) -> float | None:
        won = sum(verdict[1:] == (as_given, swapped) for verdict in scored)
        return won / len(scored) if scored else None

    return {
        'pairs': len(verdicts), 'first': results['first'], 'second': results['second'], 'ties': results['tie'],
        'abstentions': results['abstain'],
        'consistent': sum(verdict.as_given == verdict.swapped for verdict in scored),
        'first_shown_won_both': share('first', 'second'), 'last_shown_won_both': share('second', 'first'),
    }  # fmt: skip
