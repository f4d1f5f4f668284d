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
from typing import Any, NamedTuple

from safe_align.config import UserError
from safe_align.remote.answers import Answer
from safe_align.remote.endpoint import Endpoint, Request
from safe_align.remote.fields import Server
from safe_align.remote.journal import Journal
from safe_align.remote.questions import FIELDS, TEMPLATE
from safe_align.remote.verdicts import Said, Verdict, combine, count, of_both, verdict_in

__all__ = ['FIELDS', 'TEMPLATE', 'Judge', 'Pair', 'Said', 'Verdict', 'combine', 'count', 'read_template', 'verdict_in']

SETTINGS = {'temperature': 0.0, 'max_tokens': 2048}
OPTIONAL = {'temperature': r'\btemperature\b', 'max_tokens': r'\bmax_tokens\b'}  # some models refuse them
REFUSALS = {  # what servers say of a question that they will not, or cannot, read
    'too long': r'(?i)context_length_exceeded|maximum context length|context window|prompt is too long',
    'content filter': r'(?i)content.?filter|content.?(management.)?policy|\bmoderation\b|\bflagged\b|usage policy',
}


class Pair(NamedTuple):
    """Two answers to a conversation of the turns user, assistant, ..., user."""

    turns: Sequence[str]
    first: str
    second: str


def read_template(path: str, flag: str = '--judge_template') -> str:
    """A judge's template: text with the fields {prompt}, {answer_a} and {answer_b}; other braces are text.

    It must ask for one verdict in the form [[A]], [[B]] or [[C]] (a tie).

    Raises:
        UserError: it cannot be read, or lacks a field.
    """
    try:
        text = Path(path).expanduser().read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else 'is no UTF-8 text'
        raise UserError(f'{flag} {path}: {reason}') from error
    missing = [field for field in FIELDS if field not in text]
    if missing:
        raise UserError(f'{flag} {path}: lacks {" and ".join(missing)}; a template has {", ".join(FIELDS)}')
    return text


class Judge:
    """A judge, and its answers so far; none is paid for twice.

    Args:
        server: the judge's.
        journal: where each of its answers is written down as it comes, by what it was asked; it may be of other runs.
        template: as `read_template` gives it.

    Raises:
        UserError: the server cannot be asked, or the journal holds something else.
    """

    def __init__(self, server: Server, journal: Journal, template: str = TEMPLATE) -> None:
        self.endpoint, self.journal, self.template = Endpoint(server._replace(api='chat')), journal, template
        self._said: dict[str, Said] = {}
        for number, row in enumerate(journal.rows(), 1):
            if not isinstance(row.get('key'), str) or not isinstance(row.get('answer'), str):
                raise UserError(f'{journal.path}, line {number}: is no answer of a judge')
            self._said[row['key']] = Said(row['answer'], row.get('is_finished', True), row.get('refusal'))

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
        asked = list(waiting)

        def keep(number: int, answer: Answer) -> None:
            key, said = asked[number], Said(answer.text, answer.is_finished, answer.refusal)
            self.journal.append([self._row(key, answer, said)])
            self._said[key] = said
            for waits in waiting[key]:
                settle(waits)

        if asked:
            requests = (self._request(next(iter(waiting[key].values()))) for key in asked)
            try:
                self.endpoint.ask(requests, keep, OPTIONAL, REFUSALS)
            except UserError as error:
                raise UserError(f'{error}; {len(self._said)} answers are kept') from error
        return [verdicts[number] for number in range(len(pairs))]

    def said(self, pair: Pair) -> tuple[Said, Said]:
        """What the judge said of a pair that it was asked about, with `first` shown first and shown last."""
        return self._said[self._key(pair)], self._said[self._key(_swapped(pair))]

    def statistics(self, verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Counts of pairs, how often a place won whatever stood there, and what this run has paid for."""
        usage = self.endpoint.usage
        return {
            **count(verdicts), 'answers_paid': usage.requests, 'prompt_tokens': usage.prompt_tokens,
            'completion_tokens': usage.completion_tokens,
        }  # fmt: skip

    def _row(self, key: str, answer: Answer, said: Said) -> dict[str, Any]:
        return {
            'key': key, 'model': self.endpoint.model, 'verdict': said.verdict, 'answer': answer.text,
            'is_finished': answer.is_finished, 'refusal': answer.refusal,
            'prompt_tokens': answer.prompt_tokens, 'completion_tokens': answer.completion_tokens,
        }  # fmt: skip

    def _key(self, pair: Pair) -> str:
        """A hash of all that the answer depends on; the order is in which answer is A."""
        asked = [self.endpoint.model, self.template, SETTINGS, list(pair.turns), pair.first, pair.second]
        return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()

    def _request(self, pair: Pair) -> Request:
        fields = dict(zip(FIELDS, (_conversation(pair.turns), pair.first, pair.second), strict=True))
        text = re.sub('|'.join(map(re.escape, FIELDS)), lambda field: fields[field[0]], self.template)

        def make(refused: frozenset[str]) -> dict[str, Any]:
            settings = {name: value for name, value in SETTINGS.items() if name not in refused}
            if 'max_tokens' in refused:
                settings['max_completion_tokens'] = SETTINGS['max_tokens']  # its name for models that reason
            return {'messages': [{'role': 'user', 'content': text}], **settings}

        return make


def _swapped(pair: Pair) -> Pair:
    return Pair(pair.turns, pair.second, pair.first)


def _conversation(turns: Sequence[str]) -> str:
    if len(turns) == 1:
        return turns[0]
    return '\n\n'.join(f'{"Assistant" if number % 2 else "User"}: {turn}' for number, turn in enumerate(turns))
