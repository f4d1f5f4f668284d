"""Costs of responses, prompt by prompt: as a file gives them, or as the safety test leaves them in `costs.jsonl`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safe_align.bounds import Array
from safe_align.config import UserError
from safe_align.datasets.raw._rows import json_rows
from safe_align.datasets.rows import prompt_hash, prompt_name
from safe_align.evaluate.strata import put
from safe_align.templates import turns_of

HASH = re.compile('[0-9a-f]{16}')
STRATUM = 'stratum'


@dataclass(frozen=True)
class Costs:
    """N responses, those of a prompt one after the other: the prompt of each, its costs, one a column, and its kind."""

    prompts: list[str]
    costs: list[list[float]]
    strata: list[str] | None = None

    @property
    def names(self) -> list[str]:
        """The prompts, each once, in order."""
        return list(dict.fromkeys(self.prompts))

    @property
    def most_samples(self) -> int:
        """The most responses that a prompt has."""
        return int(np.unique(self.prompts, return_counts=True)[1].max())

    def parts(self) -> Iterator[tuple[int, str | None, list[str], Array]]:
        """What must hold, each by itself: every column on every kind; column, kind, and n prompts with costs (n,)."""
        kinds: list[str | None] = [*dict.fromkeys(self.strata)] if self.strata else [None]
        for column, costs in enumerate(np.array(self.costs).T):
            for kind in kinds:
                which = [n for n in range(len(costs)) if self.strata is None or self.strata[n] == kind]
                yield column, kind, [self.prompts[n] for n in which], costs[which]

    def text(self) -> str:
        """The file: a line a response."""
        lines, seen = [], dict.fromkeys(self.prompts, 0)
        for n, (prompt, costs) in enumerate(zip(self.prompts, self.costs, strict=True)):
            row = {'prompt': prompt, 'sample': seen[prompt], 'cost': costs[0] if len(costs) == 1 else costs}
            lines.append(json.dumps({**row, STRATUM: self.strata[n]} if self.strata else row))
            seen[prompt] += 1
        return '\n'.join([*lines, ''])


def names_of(hashes: Iterable[int]) -> list[str]:
    """The prompts' hashes as names: 16 digits each."""
    return [prompt_name(one) for one in hashes]


def hashes_of(names: Sequence[str]) -> np.ndarray | None:
    """The prompts' hashes, (n,) uint64; None where a name is no hash, so that nothing can be compared with it."""
    if not all(map(HASH.fullmatch, names)):
        return None
    return np.array([int(name, 16) for name in names], np.uint64)


def read_costs(path: Path, column: str | None = None, key: str = 'cost') -> Costs:
    """The costs of a file of JSON lines; a prompt is its text, its turns, its hash, or an id without a space.

    Args:
        path: the file.
        column: the key of the prompt's kind, if there is one.
        key: that of the cost.

    Raises:
        UserError: the file cannot be read, has no rows, or a row has no prompt, or a cost that is no finite number.
    """
    groups: dict[str, list[list[float]]] = {}
    kinds: dict[str, str] = {}
    for place, row in json_rows('costs', path):
        if not {'prompt', key} <= row.keys():
            raise UserError(f'{place}: expected {{"prompt": ..., "{key}": number}}, found {", ".join(sorted(row))}')
        name = _name(place, row['prompt'])
        groups.setdefault(name, []).append(_numbers(f'{place}: {key}', row[key]))
        if column is not None:
            put(kinds, name, row.get(column), f'{place}, --strata {column}')
    pairs = [(name, costs) for name, group in groups.items() for costs in group]
    if not pairs:
        raise UserError(f'{path}: there are no costs')
    if len({len(costs) for _, costs in pairs}) > 1:
        raise UserError(f'{path}: some rows have more costs than others')
    strata = None if column is None else [kinds[name] for name, _ in pairs]
    return Costs([name for name, _ in pairs], [costs for _, costs in pairs], strata)


def _name(place: str, prompt: Any) -> str:
    if isinstance(prompt, int) and not isinstance(prompt, bool):
        return str(prompt)
    if isinstance(prompt, str) and prompt and not any(map(str.isspace, prompt)):
        return prompt
    try:
        return f'{prompt_hash(turns_of(prompt)):016x}'
    except (ValueError, TypeError, AttributeError):
        raise UserError(f'{place}: prompt must be a text, turns, or an id, found {str(prompt)[:60]!r}') from None


def _numbers(place: str, cost: Any) -> list[float]:
    costs = cost if isinstance(cost, list) else [cost]
    for one in costs:
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
            raise UserError(f'{place} must be a finite number, found {one!r}')
    return [float(one) for one in costs]
