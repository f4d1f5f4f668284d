"""A model behind an OpenAI-compatible server, asked in both orders; a pair on which it contradicts itself is a tie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safe_align.remote import session
from safe_align.remote.judging import Pair, read_template

NEEDS = ('judge_url',)
COMPARES = KEEPS = True
VALUES = {'first': 1.0, 'second': 0.0, 'tie': 0.5, 'abstain': None}


def check(config: Any) -> None:
    """See this folder.

    Raises:
        UserError: the template cannot be used, or the server not be asked.
    """
    session.check(config.judge_server(), config.judge_template)


def annotator(tools: Any) -> Any:
    """See this folder.

    Raises:
        UserError: judgements.jsonl has answers of another model.
    """
    config = tools.config
    judge = session.Session(config.judge_server(), tools.journal(), read_template(config.judge_template))

    def call(pairs: Sequence[tuple[Any, Any]]) -> list[float | None]:
        verdicts = judge([Pair(a.turns, a.text, b.text) for a, b in pairs])
        tools.summary['judge'] = judge.told()
        tools.say(judge.line())
        return [VALUES[verdict.result] for verdict in verdicts]

    return call
