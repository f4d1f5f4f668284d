"""Files of answers, as the systems write them that this one brings together, as prompts and texts.

- HALOs' `samples/<exp>.json`: an object with `config` and `samples`, rows of `prompt`, `chosen` and `policy`, in which
  the prompt is a whole conversation between the marks that the config names;
- rows, as a JSON array or a line each, of HALOs' newest sampling (`prompt` or `instruction`, `output`, `generator`),
  of AlpacaEval (`instruction`, `output`, `generator`), or of one's own;
- responses.jsonl of `safe_align.online.sample`, or its directory.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safe_align.config import UserError
from safe_align.datasets.raw._rows import json_objects, open_file
from safe_align.datasets.raw._turns import Turns, continued, is_transcript, joined, split, transcript, turns_at
from safe_align.datasets.rows import prompt_hash
from safe_align.models.record import record_of
from safe_align.online.records import RESPONSES, Prompt
from safe_align.templates import turns_of

PROMPTS, ANSWERS, CHOSEN = ('prompt', 'instruction'), ('policy', 'output', 'response'), ('chosen', 'reference')
MARKS = {'human_prefix': '\n<|user|>\n', 'human_suffix': '', 'assistant_prefix': '\n<|assistant|>\n',
         'assistant_suffix': ''}  # fmt: skip  # HALOs' own, which its older configs do not name
SHOWN = 60  # characters of a prompt that a message names
Row = dict[str, Any]


class Sample(NamedTuple):
    """A row: the turns user, assistant, ..., user of its prompt, their hash, and its texts by the keys asked for."""

    place: str
    turns: list[str]
    prompt: int
    texts: dict[str, str]
    row: Row


class SampleFile(NamedTuple):
    """A file, its rows with their places, which messages start with, and the config of a file of HALOs."""

    path: Path
    rows: list[tuple[str, Row]]
    config: Row | None

    @property
    def name(self) -> str:
        """Of the file, or of the directory whose responses it holds."""
        return self.path.resolve().parent.name if self.path.name == RESPONSES else self.path.name.partition('.')[0]

    @property
    def policy(self) -> str:
        """Who answered: the generator of all rows, the policy in the directory's record, or else the file's name."""
        generators = {row.get('generator') for _, row in self.rows}
        if len(generators) == 1 and (one := generators.pop()) is not None:
            return str(one)
        record = record_of(str(self.path.parent)) if self.path.name == RESPONSES else None
        return Path((record or {}).get('arguments', {}).get('model_name_or_path', self.name)).name

    def key(self, flag: str, given: str | None, known: Sequence[str]) -> str:
        """The key of what a flag names, or of the first of `known` that the first row has.

        Raises:
            UserError: the first row has none of them.
        """
        place, first = self.rows[0]
        key = next((one for one in ([given] if given else known) if one in first), None)
        if key is None:
            raise UserError(
                f'{place}: no {given or " or ".join(known)}; name the key by --{flag}; keys found: {", ".join(first)}'
            )
        return key

    def samples(self, prompt_key: str | None, *keys: str) -> list[Sample]:
        """The rows, with the texts under `keys`.

        Raises:
            UserError: a row lacks one, or is of another form.
        """
        prompt_key = self.key('prompt_key', prompt_key, PROMPTS)
        return [self._sample(place, row, prompt_key, keys) for place, row in self.rows]

    def _sample(self, place: str, row: Row, prompt_key: str, keys: Sequence[str]) -> Sample:
        for key in (prompt_key, *keys):
            if row.get(key) is None:
                raise UserError(f'{place}: no {key}; keys found: {", ".join(k for k in row if row[k] is not None)}')
        texts = {}
        try:
            prompt = row[prompt_key]
            said = conversation(prompt, self.config) if isinstance(prompt, str) else None
            messages = prompt if said is None else [{'role': role, 'content': text} for role, text in said]
            asked, answered = split(turns_at({prompt_key: messages}, prompt_key, 'user'))
            if answered is not None:
                raise ValueError(f'{prompt_key} ends with a turn of the assistant')
            for key in keys:
                _, text = split(continued({'prompt': messages, key: row[key]}, key))
                if text is None:
                    raise ValueError(f'{key} ends with a turn of the user')
                texts[key] = text.strip()
            turns = turns_of(asked)
            json.dumps([turns, row], ensure_ascii=False).encode()
            return Sample(place, turns, prompt_hash(turns), texts, row)
        except ValueError as error:  # of half of a surrogate pair too, which is no text
            raise UserError(f'{place}: {error}') from error


def read_samples(flag: str, given: str) -> SampleFile:
    """The rows of the file or directory that a flag names.

    Raises:
        UserError: it cannot be read, is of another form, or holds no rows.
    """
    path, where = Path(given), f'--{flag} {given}'
    try:
        path = path.expanduser()
        path = path / RESPONSES if path.is_dir() else path
        where = f'--{flag} {path}'
        with open_file(path) as stream:
            data = stream.read()
    except (OSError, EOFError, zlib.error, RuntimeError) as error:  # the last of a home that nobody has
        raise UserError(f'{where}: cannot be read: {getattr(error, "strerror", None) or error}') from error
    whole = _whole(where, data)
    rows = list(json_objects(where, io.BytesIO(data)) if whole is None else _rows_of(where, whole['samples']))
    if not rows:
        raise UserError(f'{where}: it holds no rows')
    return SampleFile(path, rows, None if whole is None else whole.get('config') or {})


def check_same_prompts(where: str, sides: Mapping[str, Iterable[Sample | Prompt]]) -> None:
    """Refuse two sides, by their names, that have answered different prompts.

    Raises:
        UserError: it starts with `where`, and names a prompt that is in one side alone.
    """
    prompts = {side: {prompt_hash(one.turns): one for one in answers} for side, answers in sides.items()}
    both = set.intersection(*map(set, prompts.values()))
    alone = {side: [one for key, one in found.items() if key not in both] for side, found in prompts.items()}
    told = [f'{len(left)} are in {side} alone, such as {shown(left[0])}' for side, left in alone.items() if left]
    if told:
        raise UserError(f'{where}: the same prompts were expected in both; {"; ".join(told)}; {len(both)} are in both')


def shown(one: Sample | Prompt) -> str:
    """The last turn of a prompt, or how it starts, for a message."""
    line = ' '.join(one.turns[-1].split())
    return repr(line if len(line) <= SHOWN else f'{line[:SHOWN]}...')


def conversation(text: str, config: Row | None) -> Turns:
    """The turns of a prompt that is one text: between the marks of HALOs if it is theirs, as Anthropic's, or one turn.

    A prompt that was cut may begin in the middle of a turn; a turn of the assistant that it begins with is left out.
    """
    if is_transcript(text):
        said = transcript(text)
    else:
        said = [('user', text)] if config is None else _between_marks(text, {**MARKS, **config})
    while said and said[0][0] == 'assistant':
        said = said[1:]
    return said[:-1] if said and said[-1] == ('assistant', '') else said


def _between_marks(text: str, marks: Row) -> Turns:
    roles = {marks[f'{name}_prefix'].strip(): role for name, role in (('human', 'user'), ('assistant', 'assistant'))}
    roles.pop('', None)
    if not roles:
        return [('user', text.strip())]
    lead, *rest = re.split(f'({"|".join(map(_pattern, (marks["human_prefix"], marks["assistant_prefix"])))})', text)
    said = [(roles[mark.strip()], part) for mark, part in zip(rest[::2], rest[1::2], strict=True)]
    if lead.strip():
        said.insert(0, ('assistant' if said and said[0][0] == 'user' else 'user', lead))
    suffixes = {'user': marks['human_suffix'].strip(), 'assistant': marks['assistant_suffix'].strip()}
    return joined([(role, part.strip().removesuffix(suffixes[role]).strip()) for role, part in said])


def _pattern(mark: str) -> str:
    """A mark, whose white space may have been lost where the text begins or ends."""
    core = mark.strip()
    if not core:
        return '(?!)'
    before, after = (re.escape(part) for part in mark.split(core, 1))
    return rf'(?:\A\s*|{before}){re.escape(core)}(?:{after}|\s*\Z)'


def _whole(where: str, data: bytes) -> Row | None:
    """HALOs' object, if that is what it is; JSON has no NaN, though some write it."""
    try:
        value = json.loads(data, parse_constant=lambda _: None) if data.lstrip()[:1] == b'{' else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or 'samples' not in value:
        return None
    config = value.get('config') or {}
    if not isinstance(config, dict) or not all(isinstance(config.get(mark, ''), str) for mark in MARKS):
        raise UserError(f'{where}: config must be an object in which {", ".join(MARKS)} are texts')
    return value


def _rows_of(where: str, rows: Any) -> Iterator[tuple[str, Row]]:
    if not isinstance(rows, list):
        raise UserError(f'{where}: samples must be a list, found {type(rows).__name__}')
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f'{where}, row {number}: a JSON object was expected, found {type(row).__name__}')
        yield f'{where}, row {number}', row
