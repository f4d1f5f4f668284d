"""Which of two answers is better, by a model behind an OpenAI-compatible server, asked in both orders.

A judge that favours a place contradicts itself when the answers change places. An answer wins if the judge says so in
both orders; if it says two different things the pair is a tie; if it gives no verdict in either order the pair is not
scored, which is no loss for anyone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from safe_align.config import UserError
from safe_align.remote.asking import SETTINGS, Question, Row, ask
from safe_align.remote.courier import ask_apart
from safe_align.remote.endpoint import Endpoint
from safe_align.remote.fields import Server
from safe_align.remote.journal import Journal
from safe_align.remote.questions import FIELDS, TEMPLATE
from safe_align.remote.verdicts import Said, Verdict, combine, count, of_both, verdict_in

__all__ = ['FIELDS', 'TEMPLATE', 'Judge', 'Pair', 'Said', 'Verdict', 'combine', 'count', 'read_template', 'verdict_in']


class Pair(NamedTuple):
    """Two answers to a conversation of the turns user, assistant, ..., user."""

    turns: Sequence[str]
    first: str
    second: str


def read_template(path: str | None, own: str = TEMPLATE) -> str:
    """A judge's template: text with the fields {prompt}, {answer_a} and {answer_b}; other braces are text.

    It must ask for one verdict in the form [[A]], [[B]] or [[C]] (a tie). Without a file it is our `own`.

    Raises:
        UserError: it cannot be read, or lacks a field.
    """
    if path is None:
        return own
    try:
        text = Path(path).expanduser().read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else 'is no UTF-8 text'
        raise UserError(f'--judge_template {path}: {reason}') from error
    missing = [field for field in FIELDS if field not in text]
    if missing:
        raise UserError(f'--judge_template {path}: lacks {" and ".join(missing)}; a template has {", ".join(FIELDS)}')
    return text


class Judge:
    """A judge, and its answers so far; none is paid for twice.

    Args:
        server: the judge's.
        journal: where each of its answers is written down as it comes, by what it was asked; it may be of other runs.
        template: as `read_template` gives it.
        apart: whether a courier asks, which outlives this process where it is killed; it takes a second to start.

    Raises:
        UserError: the server cannot be asked, or the journal holds something else.
    """

    def __init__(self, server: Server, journal: Journal, template: str = TEMPLATE, *, apart: bool = False) -> None:
        self.endpoint, self.journal, self.template = Endpoint(server._replace(api='chat')), journal, template
        self._ask = ask_apart if apart else ask
        self._said: dict[str, Said] = {}
        for number, row in enumerate(journal.rows(), 1):
            if not isinstance(row.get('key'), str) or not isinstance(row.get('answer'), str):
                raise UserError(f'{journal.path}, line {number}: is no answer of a judge')
            self._remember(row)

    def __call__(self, pairs: Sequence[Pair], each: Callable[[int, Verdict], object] | None = None) -> list[Verdict]:
        """Verdicts, in order; each is handed over as soon as it stands, in any order.

        Raises:
            UserError: the server failed, or an answer cannot be written down; what had come by then is kept.
        """
        keys = [(self._key(pair), self._key(_swapped(pair))) for pair in pairs]
        verdicts: dict[int, Verdict] = {}
        waiting: dict[str, dict[int, Pair]] = {}  # by a question that is open, the pairs that it is about

        def settle(number: int) -> None:
            given, swapped = (self._said.get(key) for key in keys[number])
            if given is not None and swapped is not None:
                verdicts[number] = of_both(given.verdict, swapped.verdict)
                if each is not None:
                    each(number, verdicts[number])

        for number, pair in enumerate(pairs):
            for key, shown in zip(keys[number], (pair, _swapped(pair)), strict=True):
                if key not in self._said:
                    waiting.setdefault(key, {})[number] = shown
            settle(number)

        def keep(row: Row) -> None:
            self._remember(row)
            for waits in waiting[row['key']]:
                settle(waits)

        if waiting:
            questions = [self._question(key, next(iter(some.values()))) for key, some in waiting.items()]
            try:
                self._ask(self.endpoint, self.journal, questions, keep)
            except UserError as error:
                raise UserError(f'{error}; {len(self._said)} answers are kept') from error
        return [verdicts[number] for number in range(len(pairs))]

    def said(self, pair: Pair) -> tuple[Said, Said]:
        """What the judge said of a pair that it was asked about, with `first` shown first and shown last."""
        return self._said[self._key(pair)], self._said[self._key(_swapped(pair))]

    def _remember(self, row: Row) -> None:
        self._said[row['key']] = Said(row['answer'], row.get('is_finished', True), row.get('refusal'))

    def _key(self, pair: Pair) -> str:
        """A hash of all that the answer depends on; the order is in which answer is A."""
        asked = [self.endpoint.model, self.template, SETTINGS, list(pair.turns), pair.first, pair.second]
        return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()

    def _question(self, key: str, pair: Pair) -> Question:
        fields = dict(zip(FIELDS, (_conversation(pair.turns), pair.first, pair.second), strict=True))
        return Question(key, re.sub('|'.join(map(re.escape, FIELDS)), lambda field: fields[field[0]], self.template))


def _swapped(pair: Pair) -> Pair:
    return Pair(pair.turns, pair.second, pair.first)


def _conversation(turns: Sequence[str]) -> str:
    if len(turns) == 1:
        return turns[0]
    return '\n\n'.join(f'{"Assistant" if number % 2 else "User"}: {turn}' for number, turn in enumerate(turns))
