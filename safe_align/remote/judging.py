"""Which of two answers is better, by a model behind an OpenAI-compatible server, asked in both orders.

A judge that favours a place contradicts itself when the answers change places. An answer wins if the judge says so in
both orders; if it says two different things the pair is a tie; if it gives no verdict in either order the pair is not
scored, which is no loss for anyone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from safe_align.config import UserError
from safe_align.remote.asking import SETTINGS, Question, Row
from safe_align.remote.courier import ask_apart
from safe_align.remote.endpoint import Endpoint
from safe_align.remote.fields import JudgeFields, Server
from safe_align.remote.journal import Journal
from safe_align.remote.questions import TEMPLATE, Pair, filled, read_template
from safe_align.remote.verdicts import Said, Verdict, count, of_both

PAID = ('prompt_tokens', 'completion_tokens')
NEEDED = {'key': str, 'model': str, 'answer': str, **dict.fromkeys(PAID, int)}  # of a row of the journal
SAME = Verdict('tie', None, None)  # of answers that are the same, about which nobody is asked
Each = Callable[[int, Verdict], object]


class Judge:
    """A judge that goes on from the answers that earlier runs have paid for; none is paid for twice.

    A courier asks it, which outlives this process where that is killed, and takes a second to start.

    Args:
        server: the judge's.
        journal: where each of its answers is written down as it comes, of this run and those that it goes on from.
        template: as `read_template` gives it.

    Raises:
        UserError: the server cannot be asked, or the journal holds something else, or answers of another model.
    """

    def __init__(self, server: Server, journal: Journal, template: str = TEMPLATE) -> None:
        self.endpoint, self.journal, self.template = Endpoint(server._replace(api='chat')), journal, template
        self._said: dict[str, Said] = {}
        self._verdicts: list[Verdict] = []
        before = list(journal.rows())
        for number, row in enumerate(before, 1):
            if not all(isinstance(row.get(name), kind) for name, kind in NEEDED.items()):
                raise UserError(f'{journal.path}, line {number}: is no answer of a judge')
            self._remember(row)
        self.endpoint.go_on_from({row['model'] for row in before})
        self._before = {'answers': len(before), **{name: sum(row[name] for row in before) for name in PAID}}

    def __call__(self, pairs: Sequence[Pair], each: Each | None = None) -> list[Verdict]:
        """Verdicts, in order; each is handed over with its number as soon as it stands, in any order.

        Raises:
            UserError: the server failed, or an answer cannot be written down; what had come by then is kept.
        """
        tell = each or (lambda number, verdict: None)
        verdicts = {n: SAME for n, pair in enumerate(pairs) if pair.first == pair.second}
        for number in verdicts:
            tell(number, SAME)
        asked = [n for n in range(len(pairs)) if n not in verdicts]
        found = self._verdicts_on([pairs[n] for n in asked], lambda n, verdict: tell(asked[n], verdict))
        self._verdicts += found
        verdicts.update(zip(asked, found, strict=True))
        return [verdicts[n] for n in range(len(pairs))]

    def said(self, pair: Pair) -> tuple[Said, Said]:
        """What the judge said of a pair that it was asked about, with `first` shown first and shown last."""
        return self._said[self._key(pair)], self._said[self._key(pair.swapped)]

    def paid(self) -> dict[str, int]:
        """Answers that all runs have paid for, and their tokens."""
        usage = self.endpoint.usage
        now = {'answers': usage.requests, **{name: getattr(usage, name) for name in PAID}}
        return {name: number + self._before[name] for name, number in now.items()}

    def told(self) -> dict[str, Any]:
        """The model, its template, what it said of the pairs of this run, and what all runs have paid."""
        template = hashlib.blake2b(self.template.encode(), digest_size=8).hexdigest()
        return {'model': self.endpoint.model, 'template': template, **count(self._verdicts), **self.paid()}

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

    def _verdicts_on(self, pairs: Sequence[Pair], tell: Each) -> list[Verdict]:
        """Of pairs of which the answers differ."""
        keys = [(self._key(pair), self._key(pair.swapped)) for pair in pairs]
        verdicts: dict[int, Verdict] = {}
        waiting: dict[str, dict[int, Pair]] = {}  # by a question that is open, the pairs that it is about

        def settle(number: int) -> None:
            given, swapped = (self._said.get(key) for key in keys[number])
            if given is not None and swapped is not None:
                verdicts[number] = of_both(given.verdict, swapped.verdict)
                tell(number, verdicts[number])

        for number, pair in enumerate(pairs):
            for key, shown in zip(keys[number], (pair, pair.swapped), strict=True):
                if key not in self._said:
                    waiting.setdefault(key, {})[number] = shown
            settle(number)

        def keep(row: Row) -> None:
            self._remember(row)
            for waits in waiting[row['key']]:
                settle(waits)

        if waiting:
            questions = [
                Question(key, filled(self.template, next(iter(some.values())))) for key, some in waiting.items()
            ]
            try:
                ask_apart(self.endpoint, self.journal, questions, keep)
            except UserError as error:
                raise UserError(f'{error}; {len(self._said)} answers are kept') from error
        return [verdicts[number] for number in range(len(pairs))]

    def _remember(self, row: Row) -> None:
        self._said[row['key']] = Said(row['answer'], row.get('is_finished', True), row.get('refusal'))

    def _key(self, pair: Pair) -> str:
        """A hash of all that the answer depends on; the order is in which answer is A."""
        asked = [self.endpoint.model, self.template, SETTINGS, list(pair.turns), pair.first, pair.second]
        return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()


def check(config: JudgeFields) -> None:
    """Refuse a judge that cannot be asked, before anything is written.

    Raises:
        UserError: the template cannot be used, or the server's address or the key is none.
    """
    read_template(config.judge_template)
    Endpoint(config.judge_server())


def open_judge(config: JudgeFields, journal: Journal, own: str = TEMPLATE) -> Judge:
    """The judge that options name, with the template `own` unless they name another.

    Raises:
        UserError: it cannot be used, or the journal has answers of another model.
    """
    return Judge(config.judge_server(), journal, read_template(config.judge_template, own))
