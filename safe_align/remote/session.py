"""A judge over all runs that write one journal: what it says now, and what they have paid together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from safe_align.remote.endpoint import Endpoint
from safe_align.remote.fields import JudgeFields, Server
from safe_align.remote.journal import Journal
from safe_align.remote.judging import TEMPLATE, Judge, Pair, Verdict, count, read_template

PAID = ('prompt_tokens', 'completion_tokens')
SAME = Verdict('tie', None, None)  # of answers that are the same


class Session(Judge):
    """A judge that goes on from the answers that earlier runs have paid for.

    Args:
        server: the judge's.
        journal: of this run and those that it goes on from.
        template: as `Judge` takes it.
        apart: as `Judge` takes it.

    Raises:
        UserError: the server cannot be used, or the journal has answers of another model.
    """

    def __init__(self, server: Server, journal: Journal, template: str = TEMPLATE, *, apart: bool = False) -> None:
        super().__init__(server, journal, template, apart=apart)
        before = list(journal.rows())
        self.endpoint.go_on_from({row['model'] for row in before})
        self._before = {'answers': len(before), **{name: sum(row[name] for row in before) for name in PAID}}
        self._verdicts: list[Verdict] = []

    def __call__(self, pairs: Sequence[Pair], each: Callable[[int, Verdict], object] | None = None) -> list[Verdict]:
        """As `Judge` does; answers that are the same are a tie, about which nobody is asked."""
        tell = each or (lambda number, verdict: None)
        verdicts = {n: SAME for n, pair in enumerate(pairs) if pair.first == pair.second}
        for number in verdicts:
            tell(number, SAME)
        asked = [n for n in range(len(pairs)) if n not in verdicts]
        found = super().__call__([pairs[n] for n in asked], lambda n, verdict: tell(asked[n], verdict))
        self._verdicts += found
        verdicts.update(zip(asked, found, strict=True))
        return [verdicts[n] for n in range(len(pairs))]

    def paid(self) -> dict[str, int]:
        """Answers that all runs have paid for, and their tokens."""
        usage = self.endpoint.usage
        now = {'answers': usage.requests, **{name: getattr(usage, name) for name in PAID}}
        return {name: number + self._before[name] for name, number in now.items()}

    def told(self) -> dict[str, Any]:
        """The model, what it said of the pairs of this run about which it was asked, and what all runs have paid."""
        return {'model': self.endpoint.model, **count(self._verdicts), **self.paid()}

    def line(self) -> str:
        """The same in a line."""
        told = self.told()
        scored = told['pairs'] - told['abstentions']
        first, last = (f'{told[f"{place}_shown_won_both"] or 0:.0%}' for place in ('first', 'last'))
        return (
            f'judge {told["model"]}: {told["pairs"]} pairs, {told["ties"]} ties, {told["abstentions"]} abstentions; '
            f'the same verdict in both orders on {told["consistent"]} of {scored}; whoever was shown first won on '
            f'{first}, last on {last}; {told["answers"]} answers, {told["prompt_tokens"]} tokens in, '
            f'{told["completion_tokens"]} out'
        )


def check(config: JudgeFields) -> None:
    """Refuse a judge that cannot be asked, before anything is written.

    Raises:
        UserError: the template cannot be used, or the server's address or the key is none.
    """
    read_template(config.judge_template)
    Endpoint(config.judge_server())


def open_session(config: JudgeFields, journal: Journal, own: str = TEMPLATE, *, apart: bool = False) -> Session:
    """The judge that options name, with the template `own` unless they name another.

    Raises:
        UserError: it cannot be used, or the journal has answers of another model.
    """
    return Session(config.judge_server(), journal, read_template(config.judge_template, own), apart=apart)
