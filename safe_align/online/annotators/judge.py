"""A model behind an OpenAI-compatible server, asked in both orders; a pair on which it contradicts itself is a tie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safe_align.remote.endpoint import Endpoint
from safe_align.remote.judging import TEMPLATE, Judge, Pair, Verdict, count, read_template

NEEDS = ('judge_url',)
COMPARES = KEEPS = True
PAID = ('prompt_tokens', 'completion_tokens')
VALUES = {'first': 1.0, 'second': 0.0, 'tie': 0.5, 'abstain': None}


def check(config: Any) -> None:
    """See this folder.

    Raises:
        UserError: the template cannot be used, or the server not be asked.
    """
    _template(config)
    Endpoint(config.judge())


def annotator(tools: Any) -> Any:
    """See this folder.

    Raises:
        UserError: judgements.jsonl has answers of another model.
    """
    journal = tools.journal()
    judge = Judge(tools.config.judge(), journal, _template(tools.config))
    before = list(journal.rows())  # of the runs that this one goes on from
    judge.endpoint.go_on_from({row['model'] for row in before})
    paid_before = {name: sum(row[name] for row in before) for name in PAID}
    said: list[Verdict] = []

    def call(pairs: Sequence[tuple[Any, Any]]) -> list[float | None]:
        asked = {n: Pair(a.turns, a.text, b.text) for n, (a, b) in enumerate(pairs) if a.text != b.text}
        verdicts = dict(zip(asked, judge(list(asked.values())), strict=True))
        said.extend(verdicts.values())
        usage = judge.endpoint.usage
        told = {
            'model': judge.endpoint.model, **count(said), 'answers': len(before) + usage.requests,
            **{name: paid_before[name] + getattr(usage, name) for name in PAID},
        }  # fmt: skip
        tools.summary['judge'] = told
        tools.say(_line(told))
        return [VALUES[verdicts[n].result] if n in verdicts else 0.5 for n in range(len(pairs))]

    return call


def _template(config: Any) -> str:
    return TEMPLATE if config.judge_template is None else read_template(config.judge_template)


def _line(told: dict[str, Any]) -> str:
    """What it says in one line."""
    scored = told['pairs'] - told['abstentions']
    first, last = (f'{told[f"{place}_shown_won_both"] or 0:.0%}' for place in ('first', 'last'))
    return (
        f'judge {told["model"]}: {told["pairs"]} pairs, {told["ties"]} ties, {told["abstentions"]} abstentions; the '
        f'same verdict in both orders on {told["consistent"]} of {scored}; whoever was shown first won on {first}, '
        f'last on {last}; {told["answers"]} answers, {told["prompt_tokens"]} tokens in, {told["completion_tokens"]} out'
    )
