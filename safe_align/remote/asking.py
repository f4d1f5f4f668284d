"""Questions to a judge: how one is put, and the row that its answer is written down as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from safe_align.remote.answers import Answer
from safe_align.remote.endpoint import Endpoint, Request
from safe_align.remote.journal import Journal
from safe_align.remote.verdicts import Said

SETTINGS = {'temperature': 0.0, 'max_tokens': 2048}
OPTIONAL = {'temperature': r'\btemperature\b', 'max_tokens': r'\bmax_tokens\b'}  # some models refuse them
REFUSALS = {  # what servers say of a question that they will not, or cannot, read
    'too long': r'(?i)context_length_exceeded|maximum context length|context window|prompt is too long',
    'content filter': r'(?i)content.?filter|content.?(management.)?policy|\bmoderation\b|\bflagged\b|usage policy',
}
Row = dict[str, Any]


class Question(NamedTuple):
    """A hash of all that the answer depends on, and the text."""

    key: str
    text: str


def ask(endpoint: Endpoint, journal: Journal, questions: Sequence[Question], each: Callable[[Row], object]) -> None:
    """Ask all; each answer is written down as it comes, and handed over then.

    Raises:
        UserError: the server failed, or an answer cannot be written down; what had come by then is kept.
    """

    def keep(number: int, answer: Answer) -> None:
        row = _row(questions[number].key, endpoint.model, answer)
        journal.append([row])
        each(row)

    endpoint.ask((_request(question.text) for question in questions), keep, OPTIONAL, REFUSALS)


def _row(key: str, model: str, answer: Answer) -> Row:
    return {
        'key': key, 'model': model, 'verdict': Said(answer.text, answer.is_finished, answer.refusal).verdict,
        'answer': answer.text, 'is_finished': answer.is_finished, 'refusal': answer.refusal,
        'prompt_tokens': answer.prompt_tokens, 'completion_tokens': answer.completion_tokens,
    }  # fmt: skip


def _request(text: str) -> Request:
    def make(refused: frozenset[str]) -> dict[str, Any]:
        settings = {name: value for name, value in SETTINGS.items() if name not in refused}
        if 'max_tokens' in refused:
            settings['max_completion_tokens'] = SETTINGS['max_tokens']  # its name for models that reason
        return {'messages': [{'role': 'user', 'content': text}], **settings}

    return make
