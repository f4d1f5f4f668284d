"""A judge of one's own: the answer that shares more words with the right one, or with the question, is better.

bash scripts/compare.sh --plugin examples/custom_judge.py --judge custom_judge ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any


def judge(tools: Any) -> Callable[[Sequence[Any]], list[dict[str, Any]]]:
    """Gives a call that judges comparisons, each with `turns`, `candidate`, `baseline` and `reference`."""

    def call(comparisons: Sequence[Any]) -> list[dict[str, Any]]:
        rows = []
        for one in comparisons:
            wanted = _words(one.reference or one.turns[-1])
            candidate, baseline = (len(wanted & _words(text)) for text in (one.candidate, one.baseline))
            verdict = 'tie' if candidate == baseline else 'candidate' if candidate > baseline else 'baseline'
            rows.append({'verdict': verdict, 'candidate_words': candidate, 'baseline_words': baseline})
        return rows

    return call


def _words(text: str) -> set[str]:
    return set(re.findall(r'\w+', text.lower()))
