"""A raw data set as flat arrays of token ids, cached by content: a second start reads a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from safe_align.config import UserError
from safe_align.datasets.registry import RawDataset, RawSample
from safe_align.datasets.responses import Skip
from safe_align.datasets.rows import KINDS, Row, prompt_hash
from safe_align.templates import Template, fingerprint_of

VERSION = 9  # of what the cache holds; a change of rows.py or of this file counts it up


@dataclass(frozen=True)
class Tokenized:
    """The usable rows of one raw data set. `S` sequences, `S / per_row` rows."""

    tokens: np.ndarray  # (sum of lengths,) int32
    is_response: np.ndarray  # (sum of lengths,) bool
    offsets: np.ndarray  # (S + 1,) int64
    hashes: np.ndarray  # (rows,) uint64, of the prompts
    cut: np.ndarray  # (rows,) bool, whether a sequence was too long
    fields: dict[str, np.ndarray]  # (rows,) float32 each, log-probabilities float64
    turns: np.ndarray  # bytes of a JSON list of the prompts' turns
    meta: dict[str, Any] = field(repr=False)  # name, fingerprint, rows, usable, skipped {reason: count}
    token_fields: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # (sum of lengths,) each, read where responses are

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, all its sequences together: (rows,)."""
        return np.diff(self.offsets).reshape(len(self), -1).sum(1) if len(self) else np.zeros(0, np.int64)


def cache_dir() -> Path:
    """Where tokenised rows are kept: $SAFE_ALIGN_CACHE, or the user's cache directory."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(os.environ.get('SAFE_ALIGN_CACHE') or Path(base) / 'safe_align')


def tokenize(
    raw: RawDataset, name: str, kind: str, template: Template, max_length: int, strict: bool = False
) -> Tokenized:
    """All rows of `raw` as ids, from the cache where it has them.

    Args:
        raw: the rows.
        name: as the user wrote it, for messages.
        kind: one of `rows.KINDS`.
        template: how a conversation is written.
        max_length: tokens of a sequence, or of a prompt.
        strict: the first row that cannot be used is an error.

    Raises:
        UserError: `strict`, and a row cannot be used.
    """
    fingerprint = raw.fingerprint()
    parts = (VERSION, name, fingerprint, fingerprint_of(template.tokenizer), template.hash, kind, max_length)
    path = cache_dir() / f'{hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()}.safetensors'
    found = _read(path)
    if found is None:
        found = _build(raw, name, kind, template, max_length, fingerprint)
        _write(path, found)
    if strict and found.meta['first_skip']:
        index, reason = found.meta['first_skip']
        raise UserError(f'data set {name}, row {index}: {reason} (--strict_data)')
    return found


def _build(raw: RawDataset, name: str, kind: str, template: Template, max_length: int, fingerprint: str) -> Tokenized:
    rows, skipped, first = usable((raw[index] for index in range(len(raw))), kind, template, max_length)
    meta = {
        'name': name, 'fingerprint': fingerprint, 'rows': len(raw), 'usable': len(rows), 'skipped': dict(skipped),
        'first_skip': first,
    }  # fmt: skip
    return table_of(rows, meta)


def usable(
    samples: Iterable[RawSample], kind: str, template: Template, max_length: int
) -> tuple[list[Row], Counter[str], tuple[int, str] | None]:
    """The rows that samples make, how many make none for which reason, and the first of these with its own."""
    rows: list[Row] = []
    skipped: Counter[str] = Counter()
    first: tuple[int, str] | None = None
    for index, sample in enumerate(samples):
        try:
            _check_text(sample)
            made = KINDS[kind](sample, template, max_length)
            rows.extend(made if isinstance(made, list) else [made])
        except Skip as skip:
            skipped[str(skip)] += 1
            first = first or (index, str(skip))
    return rows, skipped, first


def _check_text(sample: RawSample) -> None:
    """Skip what a tokenizer cannot read, though JSON can hold it."""
    try:
        for value in sample.values():
            for text in value if isinstance(value, list | tuple) else (value,):
                if isinstance(text, str):
                    text.encode()
    except UnicodeEncodeError:
        raise Skip('half of a surrogate pair') from None


def table_of(rows: Sequence[Row], meta: dict[str, Any]) -> Tokenized:
    """Rows as arrays."""
    sequences = [sequence for row in rows for sequence in row.sequences]
    ids = [[token for span in sequence for token in span.ids] for sequence in sequences]
    flags = [span.is_response for sequence in sequences for span in sequence for _ in span.ids]
    return Tokenized(
        tokens=np.fromiter((token for one in ids for token in one), np.int32),
        is_response=np.array(flags, bool),
        offsets=np.cumsum([0, *map(len, ids)], dtype=np.int64),
        hashes=np.array([prompt_hash(row.turns) for row in rows], np.uint64),
        cut=np.array([row.cut for row in rows], bool),
        fields={
            key: np.array([row.fields[key] for row in rows], np.float64 if key.endswith('logps') else np.float32)
            for key in (rows[0].fields if rows else ())
        },
        turns=np.frombuffer(json.dumps([row.turns for row in rows]).encode(), np.uint8),
        meta=meta,
    )


def _write(path: Path, rows: Tokenized) -> None:
    arrays = {'tokens': rows.tokens, 'is_response': rows.is_response, 'offsets': rows.offsets, 'turns': rows.turns}
    arrays |= {'hashes': rows.hashes, 'cut': rows.cut} | {f'field.{key}': value for key, value in rows.fields.items()}
    keep(path, arrays, {'meta': json.dumps(rows.meta)})


def keep(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a file of the cache, whole or not at all; a cache that cannot be written is no error."""
    part = path.with_suffix(f'.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, part, metadata=metadata)
        part.replace(path)
    except (OSError, SafetensorError):  # safetensors has its own for a full disk
        with contextlib.suppress(OSError):
            part.unlink()


def _read(path: Path) -> Tokenized | None:
    try:
        with safe_open(path, framework='numpy') as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            meta = json.loads(file.metadata()['meta'])
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    fields = {key.removeprefix('field.'): arrays.pop(key) for key in list(arrays) if key.startswith('field.')}
    return Tokenized(**arrays, fields=fields, meta=meta)
