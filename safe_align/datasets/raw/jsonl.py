"""JSON files of the user's own, in the forms that the ecosystem writes, without a class."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, cast

from safe_align.config import UserError
from safe_align.datasets.raw._rows import find_files, flag, hash_files, json_rows, pku_sample, with_context
from safe_align.datasets.registry import RawDataset, RawSample

Turns = list[tuple[str, str]]
ROLES = {'system': 'user', 'user': 'user', 'assistant': 'assistant'}  # a system text goes before the user's first
NUMBERS = {
    'weight': 'weight', 'margin': 'margin', 'score': 'score', 'other_score': 'other_score',
    'score_chosen': 'score', 'score_rejected': 'other_score',
}  # fmt: skip
TRANSCRIPT = re.compile(r'\n\n(Human|Assistant):')  # Anthropic's own hh-rlhf files


class JsonLines(RawDataset):
    """Rows of JSON lines or arrays, gzipped or not: a file, or all such files of a directory.

    Texts are strings or lists of {role, content}. A key that is null counts as absent.

    Raises:
        UserError: a file cannot be read, or a row has no known form; the message names the line.
    """

    NAME = 'jsonl'

    def __init__(self, path: str | None = None) -> None:
        super().__init__(path)
        self._files = find_files(self.NAME, path, ('.jsonl', '.json', '.jsonl.gz', '.json.gz'))
        self._samples = [_sample(place, row) for file in self._files for place, row in json_rows(self.NAME, file)]
        if not self._samples:
            raise UserError(f'data set {self.NAME}: {path}: it holds no rows')

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> RawSample:
        return self._samples[index]

    def column(self, key: str) -> list[Any]:
        """What each row holds under a key that is no part of a sample; None where it holds nothing."""
        return [row.get(key) for file in self._files for _, row in json_rows(self.NAME, file)]

    def fingerprint(self) -> str:
        """The hash of the files."""
        return hash_files(self._files)


def _sample(place: str, row: dict[str, Any]) -> RawSample:
    given = {key: value for key, value in row.items() if value is not None}
    read = next((read for form, read in FORMS.items() if given.keys() >= set(form)), None)
    if read is None:
        forms = ', '.join('+'.join(form) for form in FORMS)
        found = ', '.join(row) or 'none'
        raise UserError(f'{place}: no known form; keys found: {found}; forms known: {forms}')
    try:
        sample = read(given)
        numbers = {name: _number(given, key) for key, name in NUMBERS.items() if key in given}
    except ValueError as error:
        raise UserError(f'{place}: {error}') from error
    return cast(RawSample, {**sample, **numbers})


def _pku(row: dict[str, Any]) -> RawSample:
    prompt, answer = _split(_turns(row, 'prompt', 'user'))
    if answer is not None:
        raise ValueError('prompt ends with a turn of the assistant')
    texts = {key: _text(row, key) for key in ('response_0', 'response_1')}
    return pku_sample({**row, **texts, 'prompt': prompt})


def _pair(row: dict[str, Any]) -> RawSample:
    if 'prompt' not in row and isinstance(row['chosen'], str) and isinstance(row['rejected'], str):
        row = _with_prompt(row['chosen'], row['rejected'])
    (prompt, chosen), (other_prompt, rejected) = (_split(_continued(row, key)) for key in ('chosen', 'rejected'))
    if prompt != other_prompt:
        raise ValueError('chosen and rejected do not answer the same prompt')
    return RawSample(input=prompt, answer=chosen or '', other_answer=rejected or '', better=True)


def _completion(row: dict[str, Any]) -> RawSample:
    prompt, answer = _split(_continued(row, 'completion'))
    sample = RawSample(input=prompt, answer=answer or '')
    if 'label' in row:
        sample['better'] = flag(row, 'label')
    return sample


def _messages(row: dict[str, Any], key: str = 'messages') -> RawSample:
    turns = _turns(row, key, 'user')
    if key == 'messages' and len(turns) > 2 and len(turns) % 2 == 0:
        return RawSample(dialogue=[text for _, text in turns])  # every turn of the assistant is learnt
    prompt, answer = _split(turns)
    return RawSample(input=prompt) if answer is None else RawSample(input=prompt, answer=answer)


def _prompt(row: dict[str, Any]) -> RawSample:
    return _messages(row, 'prompt')


def _instruction(row: dict[str, Any]) -> RawSample:
    context = _text(row, 'input') if 'input' in row else None
    sample = RawSample(input=with_context(_text(row, 'instruction'), context))
    if 'output' in row:
        sample['answer'] = _text(row, 'output')
    return sample


FORMS: dict[tuple[str, ...], Callable[[dict[str, Any]], RawSample]] = {  # the first that fits reads the row
    ('prompt', 'response_0', 'response_1'): _pku,
    ('chosen', 'rejected'): _pair,
    ('prompt', 'completion'): _completion,
    ('messages',): _messages,
    ('instruction',): _instruction,
    ('prompt',): _prompt,
}


def _turns(row: dict[str, Any], key: str, role: str) -> Turns:
    """The turns at `key`, neighbours of one role joined; a string is one turn of `role`."""
    value = row[key]
    if isinstance(value, str):
        return [(role, value)]
    if not isinstance(value, list):
        raise ValueError(f'{key} must be a text or a list of {{role, content}}, found {type(value).__name__}')
    turns: Turns = []
    for message in value:
        if not isinstance(message, dict) or not {'role', 'content'} <= message.keys():
            raise ValueError(f'{key}: expected {{role, content}}, found {str(message)[:60]}')
        if message['role'] not in ROLES:
            raise ValueError(f'{key}: the role must be one of {", ".join(ROLES)}, found {message["role"]!r}')
        content = message['content'] if message['content'] is not None else ''
        turns.append((ROLES[message['role']], _text({key: content}, key)))
    return _joined(turns)


def _joined(turns: Turns) -> Turns:
    joined: Turns = []
    for role, text in turns:
        if joined and joined[-1][0] == role:
            joined[-1] = (role, '\n\n'.join(part for part in (joined[-1][1], text) if part))
        else:
            joined.append((role, text))
    return joined


def _continued(row: dict[str, Any], key: str) -> Turns:
    """The prompt and what follows it at `key`; whole conversations that repeat the prompt are taken as they are."""
    prompt = _turns(row, 'prompt', 'user') if 'prompt' in row else []
    turns = _turns(row, key, 'assistant')
    if prompt and turns and prompt[-1][0] == turns[0][0] == 'user':
        if len(turns) < len(prompt) or not turns[len(prompt) - 1][1].endswith(prompt[-1][1]):
            raise ValueError(f'{key} starts with a turn of the user that is not the prompt')
        return turns
    return _joined(prompt + turns)


def _split(turns: Turns) -> tuple[str | list[str], str | None]:
    """The prompt, a text if it is one turn, and the last answer if the conversation ends with one."""
    if not turns or turns[0][0] != 'user':
        raise ValueError('a conversation must start with a turn of the user (is there a prompt?)')
    answer = turns[-1][1] if turns[-1][0] == 'assistant' else None
    texts = [text for _, text in (turns if answer is None else turns[:-1])]
    return (texts[0] if len(texts) == 1 else texts), answer


def _with_prompt(chosen: str, rejected: str) -> dict[str, Any]:
    """Two whole texts as prompt, chosen and rejected: transcripts by their speakers, others by their common words."""
    if chosen.startswith('\n\nHuman:') and rejected.startswith('\n\nHuman:'):
        return {'chosen': _transcript(chosen), 'rejected': _transcript(rejected)}
    common = ''
    for word, other in zip(*(re.findall(r'\S+|\s+', text) for text in (chosen, rejected)), strict=False):
        if word != other:
            break
        common += word
    if not common.strip():
        raise ValueError('there is no prompt, and chosen and rejected share no beginning that could be one')
    chosen, rejected = (text[len(common) :].lstrip() for text in (chosen, rejected))
    return {'prompt': common.strip(), 'chosen': chosen, 'rejected': rejected}


def _transcript(text: str) -> list[dict[str, str]]:
    roles = {'Human': 'user', 'Assistant': 'assistant'}
    _, *parts = TRANSCRIPT.split(text)
    return [{'role': roles[who], 'content': said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]


def _text(row: dict[str, Any], key: str) -> str:
    if not isinstance(row[key], str):
        raise ValueError(f'{key} must be a text, found {type(row[key]).__name__}')
    return row[key]


def _number(row: dict[str, Any], key: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f'{key} must be a finite number, found {value!r}')
    return value
