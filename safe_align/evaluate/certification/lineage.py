"""What a model was made of, model by model, and the proof that prompts are new to all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safe_align.checkpoint import Damaged, verify
from safe_align.config import UserError
from safe_align.functions import is_function
from safe_align.handoff import prompts_of
from safe_align.models.record import RECORD, base_of, found_near, record_of
from safe_align.ownership import PROMPTS, content_of


@dataclass(frozen=True)
class Ancestor:
    """A model or function in the line, and its prompts, (n,) uint64; None where nothing says what it was trained on."""

    path: str
    hash: str | None
    prompts: np.ndarray | None

    def entry(self) -> dict[str, Any]:
        """What a certificate says of it."""
        count = None if self.prompts is None else len(self.prompts)
        return {'path': self.path, 'hash': self.hash, 'num_prompts': count}


def trace(models: Iterable[tuple[str, str]]) -> list[Ancestor]:
    """The models, each with the flag that names it, and all that they were made of, each once.

    A model without a record, such as one from a hub, ends its line: nothing says what it was trained on.

    Raises:
        UserError: a parent is not where its child found it, or is no longer what it was, or its record is damaged.
    """
    found: dict[str, Ancestor] = {}
    waiting: list[tuple[str, str, str | None]] = [(f'{flag} {path}', path, None) for flag, path in models]
    while waiting:
        told_by, name, expected = waiting.pop(0)
        if is_function(name):  # it has seen no prompt; what trained a parent may be out of reach, or another by now
            key = expected or str(content_of(name))
            found.setdefault(key, Ancestor(name, key, np.empty(0, np.uint64)))
            continue
        here = Path(name).expanduser()
        content = content_of(name)
        if expected is not None and content != expected:
            what = 'has changed since' if here.is_dir() else 'is not there, so nothing says what it was trained on'
            raise UserError(f'{told_by}: its parent {name} {what}')
        key = content or name
        if key in found:
            continue
        record = record_of(name)
        found[key] = Ancestor(name, content, None if record is None else _prompts(here, told_by))
        for parent in (record or {}).get('parents', {}).values():
            waiting.append((f'{name}', found_near(parent['path'], here), parent['hash']))
        if record is None and (base := base_of(name)):  # an adapter that no stage of ours wrote
            waiting.append((name, base, None))
    return list(found.values())


def _prompts(directory: Path, told_by: str) -> np.ndarray:
    """The prompts that a stage's directory was trained on, if its record is as it was written.

    Raises:
        UserError: it is not.
    """
    try:
        verify(directory, only={PROMPTS, RECORD})
        return prompts_of(directory)
    except (Damaged, OSError, ValueError) as damage:
        raise UserError(f'{told_by}: what {directory} was trained on cannot be proved: {damage}') from damage


def check_new(ancestors: Iterable[Ancestor], prompts: np.ndarray) -> None:
    """Refuse prompts that a model in the line was trained on: (n,) uint64.

    Raises:
        UserError: it counts them.
    """
    seen = [(one.path, np.isin(prompts, one.prompts)) for one in ancestors if one.prompts is not None]
    old = np.zeros(len(prompts), bool)
    for _, among in seen:
        old |= among
    if old.any():
        path, among = max(seen, key=lambda pair: pair[1].sum())
        raise UserError(
            f'{old.sum()} of {len(prompts)} prompts are not new: {path} was trained on {among.sum()} of them'
        )
