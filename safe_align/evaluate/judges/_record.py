"""What a judge is shown, and what it says."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal['candidate', 'baseline', 'tie', 'unscored']


class Comparison(NamedTuple):
    """Two answers to a conversation of the turns user, assistant, ..., user, and the right one, if it is known."""

    turns: list[str]
    candidate: str
    baseline: str
    reference: str | None = None


def higher(candidate: float, baseline: float) -> Verdict:
    """The better one of two scores; a score that is no number says nothing."""
    if candidate == baseline:
        return 'tie'
    if candidate > baseline:
        return 'candidate'
    return 'baseline' if candidate < baseline else 'unscored'
