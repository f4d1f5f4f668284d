"""An annotator of one's own: what is said without hedging is better, and of that the shorter.

bash scripts/online.sh --plugin examples/custom_annotator.py --annotator custom_annotator
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

HEDGES = ('maybe', 'perhaps', 'possibly', 'it depends', 'i think')


def annotator(tools: Any) -> Callable[[Sequence[Any]], list[float]]:
    """Gives a call that scores conversations, each with `turns` and `text`; `tools` has models and options."""

    def scores(conversations: Sequence[Any]) -> list[float]:
        return [-sum(one.text.lower().count(hedge) for hedge in HEDGES) - len(one.text) / 1000 for one in conversations]

    return scores
