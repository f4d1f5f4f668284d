"""JSON files of the user's own, in the forms that the ecosystem writes, without a class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from safe_align.config import UserError
from safe_align.datasets.raw._rows import find_files, flag, hash_files, json_rows, pku_sample, with_context
from safe_align.datasets.raw._turns import continued, pair, split, text_at, turns_at
from safe_align.datasets.registry import LARGEST, RawDataset, RawSample

NUMBERS = {
    'reward': 'score', 'reward_A': 'score', 'reward_B': 'other_score', 'weight': 'weight', 'margin': 'margin',
    'score': 'score', 'other_score': 'other_score', 'score_chosen': 'score', 'score_rejected': 'other_score',
}  # fmt: skip
IDS = {'token_ids': 'answer_ids', 'chosen_token_ids': 'answer_ids', 'rejected_token_ids': 'other_answer_ids'}
LOG_PROBS = {'log_prob': 'log_prob', 'chosen_log_prob': 'log_prob', 'rejected_log_prob': 'other_log_prob'}


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
        self._samples = [sample_of(place, row) for file in self._files for place, row in json_rows(self.NAME, file)]
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


def sample_of(place: str, row: dict[str, Any]) -> RawSample:
    """A row in any of `FORMS`; `place` is where it stands, for messages."""
    given = {key: value for key, value in row.items() if value is not None}
    read = next((read for form, read in FORMS.items() if given.keys() >= set(form)), None)
    if read is None:
        forms = ', '.join('+'.join(form) for form in FORMS)
        found = ', '.join(row) or 'none'
        raise UserError(f'{place}: no known form; keys found: {found}; forms known: {forms}')
    try:
        sample = read(given)
        numbers = {name: _number(given, key) for key, name in NUMBERS.items() if key in given}
        sampled = _sampled(given) if 'tokenizer' in given else {}  # ids are those of a tokenizer, or nothing
    except ValueError as error:
        raise UserError(f'{place}: {error}') from error
    return cast(RawSample, {**sample, **numbers, **sampled})


def _pku(row: dict[str, Any]) -> RawSample:
    prompt, answer = split(turns_at(row, 'prompt', 'user'))
    if answer is not None:
        raise ValueError('prompt ends with a turn of the assistant')
    texts = {key: text_at(row, key) for key in ('response_0', 'response_1')}
    return pku_sample({**row, **texts, 'prompt': prompt})


def _pair(row: dict[str, Any]) -> RawSample:
    sample = pair(row)
    if 'is_chosen_safe' in row and 'is_rejected_safe' in row:
        sample['is_safe'], sample['is_other_safe'] = (flag(row, f'is_{side}_safe') for side in ('chosen', 'rejected'))
    return sample


def _completion(row: dict[str, Any], key: str = 'completion') -> RawSample:
    prompt, answer = split(continued(row, key))
    sample = RawSample(input=prompt, answer=answer or '')
    if 'label' in row:
        sample['better'] = flag(row, 'label')
    if 'is_safe' in row:
        sample['is_safe'] = flag(row, 'is_safe')
    return sample


def _response(row: dict[str, Any]) -> RawSample:
    return _completion(row, 'response')


def _output(row: dict[str, Any]) -> RawSample:
    return _completion(row, 'output')


def _outputs(row: dict[str, Any]) -> RawSample:
    sample = pair({'prompt': row['prompt'], 'chosen': row['output_A'], 'rejected': row['output_B']})
    sample['better'] = flag(row, 'label')
    return sample


def _messages(row: dict[str, Any], key: str = 'messages') -> RawSample:
    turns = turns_at(row, key, 'user')
    if key == 'messages' and len(turns) > 2 and len(turns) % 2 == 0:
        return RawSample(dialogue=[text for _, text in turns])  # every turn of the assistant is learnt
    prompt, answer = split(turns)
    return RawSample(input=prompt) if answer is None else RawSample(input=prompt, answer=answer)


def _prompt(row: dict[str, Any]) -> RawSample:
    return _messages(row, 'prompt')


def _instruction(row: dict[str, Any]) -> RawSample:
    context = text_at(row, 'input') if 'input' in row else None
    sample = RawSample(input=with_context(text_at(row, 'instruction'), context))
    if 'output' in row:
        sample['answer'] = text_at(row, 'output')
    return sample


FORMS: dict[tuple[str, ...], Callable[[dict[str, Any]], RawSample]] = {  # the first that fits reads the row
    ('prompt', 'response_0', 'response_1'): _pku,
    ('chosen', 'rejected'): _pair,
    ('prompt', 'output_A', 'output_B', 'label'): _outputs,
    ('prompt', 'completion'): _completion,
    ('prompt', 'response'): _response,
    ('messages',): _messages,
    ('instruction',): _instruction,
    ('prompt', 'output'): _output,
    ('prompt',): _prompt,
}


def _sampled(row: dict[str, Any]) -> dict[str, Any]:
    """The ids that were sampled, and their log-probabilities as a whole."""
    found: dict[str, Any] = {'tokenizer': text_at(row, 'tokenizer')}
    found |= {name: _ids(row, key) for key, name in IDS.items() if key in row}
    if 'log_probs' in row and 'answer_ids' in found:  # of single tokens
        values = row['log_probs']
        if not isinstance(values, list) or len(values) != len(found['answer_ids']):
            raise ValueError('log_probs must be a list with a number for each of token_ids')
        found['log_prob'] = math.fsum(_number({'log_probs': value}, 'log_probs') for value in values)
    return found | {name: _number(row, key) for key, name in LOG_PROBS.items() if key in row}


def _ids(row: dict[str, Any], key: str) -> list[int]:
    ids = row[key]
    if not isinstance(ids, list) or not all(type(one) is int and one >= 0 for one in ids):
        raise ValueError(f'{key} must be a list of token ids')
    return ids


def _number(row: dict[str, Any], key: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ValueError(f'{key} must be a finite number, found {value!r:.80}')
    return value
