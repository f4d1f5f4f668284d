"""Kinds of prompts, by a column of the data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from safe_align.config import UserError
from safe_align.datasets.grammar import parse_dataset
from safe_align.datasets.raw.jsonl import JsonLines
from safe_align.datasets.rows import prompt_hash
from safe_align.templates import turns_of


def strata_of(specs: Iterable[str], column: str, names: Sequence[str]) -> dict[str, str]:
    """The kind of each prompt, by its name, as the column of its row in a `jsonl` data set says.

    Raises:
        UserError: another data set, a row without the column, or a prompt of two kinds.
    """
    kinds: dict[str, str] = {}
    for spec in specs:
        name, attributes = parse_dataset(spec)
        if name != JsonLines.NAME:
            raise UserError(f'--strata {column}: is read from jsonl data sets; {spec} is none')
        raw = JsonLines(attributes.get('path'))
        for number, (prompt, kind) in enumerate(_kinds_in(raw, column), 1):
            put(kinds, f'{prompt:016x}', kind, f'--strata {column}: {spec}, row {number}')
    return {name: kinds[name] for name in names}


def categories_of(specs: Iterable[str], column: str = 'category') -> dict[int, str]:
    """What the column says of prompts, by their hash, in `jsonl` data sets; of a prompt's rows the first counts."""
    found: dict[int, str] = {}
    for spec in specs:
        name, attributes = parse_dataset(spec)
        if name == JsonLines.NAME:
            for prompt, kind in _kinds_in(JsonLines(attributes.get('path')), column):
                if kind is not None:
                    found.setdefault(prompt, kind)
    return found


def _kinds_in(raw: JsonLines, column: str) -> Iterator[tuple[int, str | None]]:
    """Hash of the prompt, and the column as text that a file can hold, of each row."""
    for sample, kind in zip(raw, raw.column(column), strict=True):
        text = sample.get('input') or (sample.get('dialogue') or [''])[0]
        yield prompt_hash(turns_of(text)), None if kind is None else str(kind).encode(errors='replace').decode()


def put(kinds: dict[str, str], name: str, kind: object, place: str) -> None:
    """Remember a prompt's kind.

    Raises:
        UserError: there is none, or it had another.
    """
    if kind is None:
        raise UserError(f'{place}: says no kind')
    if kinds.setdefault(name, str(kind)) != str(kind):
        raise UserError(f'{place}: the kind is {kind}, where another row of the same prompt says {kinds[name]}')


def weights_of(given: Sequence[str], kinds: Iterable[str]) -> dict[str, float]:
    """The share of each kind, as `--strata_weights` says: KIND=SHARE ...

    Raises:
        UserError: something else, or a kind that is not there, or one that has no share.
    """
    flag, found, weights = '--strata_weights', set(kinds), dict[str, float]()
    for one in given:
        kind, _, share = one.rpartition('=')
        try:
            weight = float(share)
        except ValueError:
            weight = math.nan
        if not kind or not 0 < weight <= 1 or kind in weights:
            raise UserError(f'{flag} {one}: KIND=SHARE was expected, each kind once, a share above 0 and at most 1')
        weights[kind] = weight
    if weights.keys() != found:
        unknown, missing = sorted(weights.keys() - found), sorted(found - weights.keys())
        told = f'no prompt is of the kind {unknown[0]}' if unknown else f'{missing[0]} has no share'
        raise UserError(f'{flag} {" ".join(given)}: {told}; the kinds are {", ".join(sorted(found))}')
    return weights
