"""A model behind an OpenAI-compatible server, asked in both orders; a pair on which it contradicts itself is a tie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safe_align.remote.judging import check, open_judge
from safe_align.remote.questions import Pair

__all__ = ['COMPARES', 'KEEPS', 'NEEDS', 'annotator', 'check']

NEEDS = ('judge_url',)
COMPARES = KEEPS = True
VALUES = {'first': 1.0, 'second': 0.0, 'tie': 0.5, 'abstain': None}


def annotator(tools: Any) -> Any:
    """See this folder.

    Raises:
        UserError: judgements.jsonl has answers of another model.
    """
    judge = open_judge(tools.config, tools.journal())

    def call(pairs: Sequence[tuple[Any, Any]]) -> list[float | None]:
        verdicts = judge([Pair(a.turns, a.text, b.text) for a, b in pairs])
        tools.summary['judge'] = judge.told()
        tools.say(judge.line())
        return [VALUES[verdict.result] for verdict in verdicts]

    return call
