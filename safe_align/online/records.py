"""Responses on disk: a row each, and the rows of a prompt together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safe_align.config import UserError
from safe_align.datasets.rows import prompt_hash, prompt_name
from safe_align.templates import messages_of

RESPONSES, FEEDBACK = 'responses.jsonl', 'feedback.jsonl'
NEEDED = {'prompt_id': str, 'prompt': list, 'sample_id': int, 'response': str}
DIGITS = 6  # of a log-probability in a file


class Drawn(NamedTuple):
    """A response, whoever drew it.

    Args:
        prompt: number of its prompt.
        sample: its number among those of the prompt.
        text: without control tokens.
        ids: with the token that ends it, if it ended; None where a server does not tell.
        log_probs: one a token; None where a server gives none.
        is_finished: whether it ended, and was not cut off.
    """

    prompt: int
    sample: int
    text: str
    ids: list[int] | None
    log_probs: list[float] | None
    is_finished: bool


@dataclass(frozen=True)
class Prompt:
    """A prompt and the rows of its responses, in the order of their numbers."""

    name: str
    turns: list[str]
    rows: list[dict[str, Any]]

    @property
    def texts(self) -> list[str]:
        """The responses."""
        return [row['response'] for row in self.rows]

    @property
    def num_tokens(self) -> int:
        """Of all responses, as far as is known."""
        return sum(len(row.get('token_ids') or row.get('log_probs') or ()) for row in self.rows)


class Writer(NamedTuple):
    """Who wrote a response: a tokenizer and a template, by their hashes."""

    fingerprint: str
    hash: str


def writer_of(prompts: Sequence[Prompt]) -> Writer:
    """Who wrote all of the responses, with nobody's hashes where that is not one, or there are no ids of theirs."""
    rows = [row for prompt in prompts for row in prompt.rows]
    writers = {(row.get('tokenizer'), row.get('template')) for row in rows}
    if len(writers) == 1 and all(isinstance(row.get('token_ids'), list) for row in rows):
        return Writer(*(str(one) for one in writers.pop()))
    return Writer('', '')


def row_of(turns: Sequence[str], drawn: Drawn, sample: int, about: dict[str, Any]) -> dict[str, Any]:
    """The row of a response, `sample` of its prompt; `about` is what its law and its makers are."""
    log_probs = None if drawn.log_probs is None else [round(value, DIGITS) for value in drawn.log_probs]
    return {
        'type': 'sample', 'prompt_id': prompt_name(prompt_hash(turns)), 'sample_id': sample,
        'prompt': messages_of(turns), 'response': drawn.text, 'token_ids': drawn.ids, 'log_probs': log_probs,
        'is_finished': drawn.is_finished, **about,
    }  # fmt: skip


def read_responses(places: Sequence[str], say: Callable[[str], object]) -> list[Prompt]:
    """The responses of files, or of directories of the stage that draws them; a prompt's may lie in several.

    Raises:
        UserError: there is no such file, or a row is none of a response, or is there twice; it names the line.
    """
    found: dict[str, Prompt] = {}
    for place in places:
        path = Path(place).expanduser()
        path = path / RESPONSES if path.is_dir() else path
        for number, row in _lines(path, say):
            where = f'{path}, line {number}'
            turns = _turns(row, where)
            prompt = found.setdefault(row['prompt_id'], Prompt(row['prompt_id'], turns, []))
            if any(one['sample_id'] == row['sample_id'] for one in prompt.rows):
                raise UserError(f'{where}: response {row["sample_id"]} of prompt {prompt.name} is there already')
            prompt.rows.append(row)
    for prompt in found.values():
        prompt.rows.sort(key=lambda row: row['sample_id'])
    return list(found.values())


def _turns(row: dict[str, Any], where: str) -> list[str]:
    for key, kind in NEEDED.items():
        if not isinstance(row.get(key), kind):
            raise UserError(f'{where}: is no response: its {key} is {row.get(key)!r:.40}')
    try:
        json.dumps([row['prompt'], row['response']], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f'{where}: holds half of a surrogate pair, which is no text') from None
    turns = [one.get('content') if isinstance(one, dict) else None for one in row['prompt']]
    texts = [one for one in turns if isinstance(one, str)]
    if len(texts) != len(turns) or messages_of(texts) != row['prompt']:
        raise UserError(f'{where}: prompt: turns of user and assistant were expected, the user first and last')
    if prompt_name(prompt_hash(texts)) != row['prompt_id']:
        raise UserError(f'{where}: its prompt is not the one of prompt_id {row["prompt_id"]}')
    return texts


def _lines(path: Path, say: Callable[[str], object]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_bytes().split(b'\n')
    except OSError as error:
        raise UserError(f'--responses {path}: cannot be read: {error.strerror}') from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if number < len(lines):
                raise UserError(f'{path}, line {number}: is not JSON: {line[:60]!r}') from None
            say(f'{path}: its last line is half written; it is left out')
            return
        yield number, row if isinstance(row, dict) else {}
