"""A model behind an OpenAI-compatible server, asked in both orders; where it contradicts itself, that is a tie.

Answers that are the same are a tie, and nobody is asked. The key is that of OPENAI_API_KEY.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safe_align.evaluate.judges._record import Comparison
from safe_align.remote import session
from safe_align.remote.judging import Pair, Verdict

NEEDS = ('judge_url',)
KEEPS = True
SIDES = {'first': 'candidate', 'second': 'baseline', 'tie': 'tie', 'abstain': 'unscored', None: None}


def check(config: Any) -> None:
    """See this folder.

    Raises:
        UserError: the template cannot be used, or the server not be asked.
    """
    session.check(config.judge_server(), config.judge_template)


def judge(tools: Any) -> Any:
    """See this folder.

    Raises:
        UserError: judgements.jsonl has answers of another model.
    """
    asked_so_far = session.Session(tools.config.judge_server(), tools.journal(), tools.config.judge_template)

    def call(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
        asked = {
            n: Pair(one.turns, one.candidate, one.baseline)
            for n, one in enumerate(comparisons) if one.candidate != one.baseline
        }  # fmt: skip
        tools.done(len(comparisons) - len(asked))
        verdicts = asked_so_far(list(asked.values()), lambda *_: tools.done(1))
        tools.summary.update(asked_so_far.told())
        tools.say(asked_so_far.line())
        found = dict(zip(asked, verdicts, strict=True))
        return [_row(found.get(n, Verdict('tie', None, None))) for n in range(len(comparisons))]

    return call


def _row(verdict: Verdict) -> dict[str, Any]:
    return {
        'verdict': SIDES[verdict.result], 'with_candidate_first': SIDES[verdict.as_given],
        'with_baseline_first': SIDES[verdict.swapped],
    }  # fmt: skip
