"""A judge over all runs that write one journal: what it says now, and what they have paid together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from safe_align.remote.endpoint import Endpoint
from safe_align.remote.fields import Server
from safe_align.remote.journal import Journal
from safe_align.remote.judging import TEMPLATE, Judge, Pair, Verdict, count, read_template

PAID = ('prompt_tokens', 'completion_tokens')


class Session:
    """A judge that goes on from the answers that earlier runs have paid for.

    Args:
        server: the judge's.
        journal: of this run and those that it goes on from.
        template: a file, as `read_template` reads it; None is the judge's own.

    Raises:
        UserError: the server or the template cannot be used, or the journal has answers of another model.
    """

    def __init__(self, server: Server, journal: Journal, template: str | None = None) -> None:
        self._judge = Judge(server, journal, _template(template))
        before = list(journal.rows())
        self._judge.endpoint.go_on_from({row['model'] for row in before})
        self._before = {'answers': len(before), **{name: sum(row[name] for row in before) for name in PAID}}
        self._said: list[Verdict] = []

    def __call__(self, pairs: Sequence[Pair], each: Callable[[int, Verdict], object] | None = None) -> list[Verdict]:
        """As `Judge` does."""
        verdicts = self._judge(pairs, each)
        self._said += verdicts
        return verdicts

    def told(self) -> dict[str, Any]:
        """The model, what it said of the pairs of this run, and what all runs have paid for."""
        usage = self._judge.endpoint.usage
        paid = {'answers': usage.requests, **{name: getattr(usage, name) for name in PAID}}
        return {
            'model': self._judge.endpoint.model, **count(self._said),
            **{name: number + self._before[name] for name, number in paid.items()},
        }  # fmt: skip

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


def check(server: Server, template: str | None) -> None:
    """Refuse a judge that cannot be asked, before anything is written.

    Raises:
        UserError: the template cannot be used, or the server's address or the key is none.
    """
    _template(template)
    Endpoint(server)


def _template(path: str | None) -> str:
    return TEMPLATE if path is None else read_template(path)
