"""A model behind an OpenAI-compatible server, asked in both orders; where it contradicts itself, that is a tie.

Answers that are the same are a tie, and nobody is asked. The key is that of OPENAI_API_KEY.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safe_align.evaluate.judges._record import Comparison
from safe_align.remote.judging import check, open_judge
from safe_align.remote.questions import Pair
from safe_align.remote.verdicts import Verdict

__all__ = ['KEEPS', 'NEEDS', 'check', 'judge']

NEEDS = ('judge_url',)
KEEPS = True
SIDES = {'first': 'candidate', 'second': 'baseline', 'tie': 'tie', 'abstain': 'unscored', None: None}


def judge(tools: Any) -> Any:
    """See this folder.

    Raises:
        UserError: judgements.jsonl has answers of another model.
    """
    asked = open_judge(tools.config, tools.journal())

    def call(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
        pairs = [Pair(one.turns, one.candidate, one.baseline) for one in comparisons]
        verdicts = asked(pairs, lambda *_: tools.done(1))
        tools.summary.update(asked.told())
        tools.say(asked.line())
        return [_row(verdict) for verdict in verdicts]

    return call


def _row(verdict: Verdict) -> dict[str, Any]:
    return {
        'verdict': SIDES[verdict.result], 'with_candidate_first': SIDES[verdict.as_given],
        'with_baseline_first': SIDES[verdict.swapped],
    }  # fmt: skip
