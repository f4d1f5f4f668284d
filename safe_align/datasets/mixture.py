"""Several data sets as one: proportions, dedup of prompts, and a split that keeps each prompt on one side."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from safe_align.config import UserError
from safe_align.datasets.grammar import parse_dataset
from safe_align.datasets.registry import RawDataset
from safe_align.datasets.tokenized import Tokenized, tokenize
from safe_align.templates import Template

MOST = 10**9  # rows that a run may draw: their numbers alone take 16 GB


@dataclass(frozen=True)
class Mixture:
    """Rows drawn from several data sets. `n` of them."""

    parts: list[Tokenized]
    rows: np.ndarray  # (n, 2) int64: part, row in it
    report: list[dict[str, Any]]  # one a part, for the stage's record
    beside: Mixture | None = None  # n rows that are looked at with these and not learnt from

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, or of what lies beside it where that is longer: (n,)."""
        own = self._of_each([part.lengths for part in self.parts])
        return own if self.beside is None else np.maximum(own, self.beside.lengths)

    @property
    def hashes(self) -> np.ndarray:
        """Hash of each row's prompt: (n,) uint64."""
        return self._of_each([part.hashes for part in self.parts])

    def turns(self) -> list[list[str]]:
        """The turns of each row's prompt."""
        texts = [json.loads(part.turns.tobytes()) for part in self.parts]
        return [texts[part][row] for part, row in self.rows]

    def _of_each(self, values: list[np.ndarray]) -> np.ndarray:
        starts = np.cumsum([0, *map(len, values)])
        return np.concatenate(values)[starts[self.rows[:, 0]] + self.rows[:, 1]]

    def take(self, which: np.ndarray) -> Mixture:
        """The rows where `which (n,)` is true, or those that it numbers."""
        return replace(self, rows=self.rows[which], beside=self.beside and self.beside.take(which))

    def counted(self) -> Mixture:
        """With a report of how many rows of each part are used, and how many of these were too long."""
        report = []
        for number, (entry, part) in enumerate(zip(self.report, self.parts, strict=True)):
            rows = self.rows[self.rows[:, 0] == number, 1]
            report.append({**entry, 'used': len(rows), 'cut': int(part.cut[rows].sum())})
        return replace(self, report=report)

    def sequences(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids, and which of them are response, of each sequence of a row."""
        rowset, inside = self._places(number)
        return [(rowset.tokens[one], rowset.is_response[one]) for one in inside]

    def token_fields(self, number: int) -> dict[str, np.ndarray]:
        """The numbers of a row's response tokens."""
        rowset, inside = self._places(number)
        return {
            name: np.concatenate([values[one][rowset.is_response[one].astype(bool)] for one in inside])
            for name, values in rowset.token_fields.items()
        }

    def _places(self, number: int) -> tuple[Tokenized, list[slice]]:
        """The part that a row is in, and where in it the tokens of its sequences stand."""
        part, row = self.rows[number]
        rowset = self.parts[part]
        per_row = (len(rowset.offsets) - 1) // len(rowset)
        return rowset, [slice(*rowset.offsets[n : n + 2]) for n in range(row * per_row, (row + 1) * per_row)]

    def fields(self, number: int) -> dict[str, Any]:
        """The numbers of a row."""
        part, row = self.rows[number]
        return {name: values[row] for name, values in self.parts[part].fields.items()}

    def column(self, name: str) -> np.ndarray:
        """One number of each row: (n,)."""
        return self._of_each([part.fields[name] for part in self.parts])

    def with_token_field(self, name: str, rows: Sequence[np.ndarray]) -> Mixture:
        """The rows with a number of each response token, those of a row one after the other."""
        values = [np.full(len(part.tokens), np.nan, np.float32) for part in self.parts]
        for number, row in enumerate(rows):
            part, inside = self.rows[number][0], self._places(number)[1]
            places = np.concatenate([np.arange(one.start, one.stop) for one in inside])
            values[part][places[self.parts[part].is_response[places].astype(bool)]] = row
        parts = [
            replace(part, token_fields={**part.token_fields, name: own})
            for part, own in zip(self.parts, values, strict=True)
        ]
        return replace(self, parts=parts)

    def with_fields(self, columns: dict[str, np.ndarray]) -> Mixture:
        """The rows with more numbers, (n,) each."""
        parts = []
        for number, part in enumerate(self.parts):
            mine = self.rows[:, 0] == number
            fields = dict(part.fields)
            for name, values in columns.items():
                fields[name] = np.full(len(part), np.nan, values.dtype)
                fields[name][self.rows[mine, 1]] = values[mine]
            parts.append(replace(part, fields=fields))
        return replace(self, parts=parts)

    def split(self, ratio: float, seed: int) -> tuple[Mixture, Mixture]:
        """Training and held-out rows, every prompt on one side; about `ratio` of the prompts are held out, or one.

        Each data set draws by itself, so that adding one changes no other (but for prompts that both have).

        Raises:
            UserError: there are not two prompts to split.
        """
        hashes = self.hashes
        prompts = np.unique(hashes)
        if len(prompts) < 2:
            raise UserError(f'--eval_split_ratio {ratio}: {len(prompts)} prompt(s) cannot be split')
        drawn = [_share(np.unique(hashes[self.rows[:, 0] == part]), ratio, seed) for part in range(len(self.parts))]
        held_out = np.unique(np.concatenate(drawn))
        held_out = held_out[: len(prompts) - 1] if len(held_out) else _share(prompts, 1 / len(prompts), seed)
        is_held_out = np.isin(hashes, held_out)
        return self.take(~is_held_out).counted(), self.take(is_held_out).counted()


def _share(prompts: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).permutation(prompts)[: round(len(prompts) * ratio)]


def build(
    specs: Sequence[str],
    kind: str,
    template: Template,
    max_length: int,
    *,
    seed: int,
    strict: bool = False,
    flag: str = '--train_datasets',
) -> Mixture:
    """The mixture that `--datasets` asks for.

    Args:
        specs: texts of the grammar NAME[:PROPORTION[:PATH]].
        kind: one of `rows.KINDS`; prompts are kept once each.
        template: how a conversation is written.
        max_length: tokens of a sequence, or of a prompt.
        seed: what the draw depends on, with the data set's name and content, so that adding one changes no other.
        strict: the first row that cannot be used is an error.
        flag: where the specs came from, for messages.

    Raises:
        UserError: a data set is unknown, named twice, cannot be read, or nothing is left.
    """
    parts: list[Tokenized] = []
    chosen: list[np.ndarray] = []
    report: list[dict[str, Any]] = []
    seen: set[tuple[str, str | None]] = set()
    for spec in specs:
        name, attributes = parse_dataset(spec)
        proportion, path = attributes['proportion'], attributes.get('path')
        raw_class = RawDataset.find(name)
        if (raw_class.NAME, path) in seen:
            raise UserError(f'{flag} {spec}: this data set is given twice')
        seen.add((raw_class.NAME, path))
        if not proportion:
            continue
        with _told(f'{flag} {spec}', raw_class):
            part = tokenize(raw_class(path=path) if path else raw_class(), name, kind, template, max_length, strict)
        key = hashlib.blake2b(repr((seed, raw_class.NAME, part.meta['fingerprint'])).encode(), digest_size=8).digest()
        rows = _draw(len(part), proportion, int.from_bytes(key, 'big'), f'{flag} {spec}')
        chosen.append(np.stack([np.full(len(rows), len(parts)), rows], 1))
        parts.append(part)
        told = {key: part.meta[key] for key in ('name', 'fingerprint', 'rows', 'skipped')}
        report.append(told)
    mixture = Mixture(parts, np.concatenate([*chosen, np.zeros((0, 2), np.int64)]).astype(np.int64), report)
    if not len(mixture):
        raise UserError(f'{flag} {" ".join(specs)}: {_why_empty(report, kind, max_length)}')
    if kind != 'prompt' and not any(part.fields['weight'].any() for part in parts if len(part)):
        raise UserError(f'{flag} {" ".join(specs)}: every row has weight 0')
    if kind == 'prompt':
        _, first = np.unique(mixture.hashes, return_index=True)
        mixture = mixture.take(np.isin(np.arange(len(mixture)), first))
    return mixture.counted()


@contextlib.contextmanager
def _told(spec: str, raw_class: type[RawDataset]) -> Iterator[None]:
    """What goes wrong in a data set of the user's own is told in a line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or raw_class.__module__.startswith('safe_align.'):
            raise
        raise UserError(f'{spec}: {raw_class.__name__}: {type(error).__name__}: {error}') from error


def _draw(size: int, proportion: float | Fraction, seed: int, spec: str) -> np.ndarray:
    """Whole copies in order, then a random rest without replacement: (count,) int64."""
    count = -int(proportion) if isinstance(proportion, Fraction) else round(min(size * proportion, 1e18))
    if count > MOST:
        raise UserError(f'{spec}: this proportion makes {count} rows, which are more than {MOST}')
    if not size:
        return np.zeros(0, np.int64)
    copies, rest = divmod(count, size)
    drawn = np.sort(np.random.default_rng(seed).permutation(size)[:rest])
    return np.concatenate([np.tile(np.arange(size), copies), drawn]).astype(np.int64)


def _why_empty(report: list[dict[str, Any]], kind: str, max_length: int) -> str:
    skipped: dict[str, int] = {}
    for entry in report:
        for reason, count in entry['skipped'].items():
            skipped[reason] = skipped.get(reason, 0) + count
    if not skipped:
        is_empty = report and not any(entry['rows'] for entry in report)
        return 'the data set is empty' if is_empty else 'the proportions leave no row'
    reasons = ', '.join(f'{count} {reason}' for reason, count in sorted(skipped.items(), key=lambda item: -item[1]))
    room = f'; --max_length leaves {max_length} tokens for a prompt' if 'prompt too long' in skipped else ''
    return f'no row can be used as {kind}: {reasons}{room}'
