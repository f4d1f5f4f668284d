"""A file beside a prompt set that tells of each look at it: prompts that were looked at once are spent.

A second look, with other settings or at another policy, would be a second chance, and delta is the probability of one.
A bound that holds at all times allows one policy to be looked at again, with further prompts behind the first.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from safe_align.config import UserError


@dataclass(frozen=True)
class Look:
    """A test that is about to be made.

    Args:
        subject: a hash of what is tested and how: policy, cost model, decoding, claim, delta.
        quantity: whose cost it is about, the cost model's or that of labels; prompts are spent for each by itself.
        thresholds: what is asked of it.
        prompts: names of the prompts, in order.
        is_anytime: whether the bounds hold at all times.
        costs: where they are given, and no policy answers for them: rows of a prompt and its costs, in order.
        told: what a reader wants to know of it, JSON values.
    """

    subject: str
    quantity: Literal['costs', 'labels']
    thresholds: list[float]
    prompts: Sequence[str]
    is_anytime: bool
    costs: list[list[Any]] | None
    told: dict[str, Any]


class Ledger:
    """The looks at a prompt set so far; no other process can look as long as this one is open.

    Raises:
        UserError: another run has it, or it cannot be opened, or a line of it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open('a+', encoding='utf-8')
        except OSError as error:
            raise UserError(f'--ledger {path}: cannot be opened: {error.strerror}') from error
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise UserError(f'--ledger {path}: another run holds it') from None
        self.looks = self._read()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.file.close()

    def _read(self) -> list[dict[str, Any]]:
        self.file.seek(0)
        looks = []
        for number, line in enumerate(self.file, 1):
            try:
                look = json.loads(line)
                _ = look['subject'], look['quantity'], look['thresholds'], look['is_anytime'], set(look['prompts'])
                _ = look['verdict'], look['told'].get('date'), look['costs']
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.file.close()
                raise UserError(f'--ledger {self.path}, line {number}: cannot be read, so nothing is known') from error
            looks.append(look)
        return looks

    def find(self, look: Look) -> dict[str, Any] | None:
        """The line of this very look, if it was made before; None if it is new.

        Raises:
            UserError: its prompts are spent.
        """
        for before in self.looks:
            if _key(before) == _key(asdict(look)):
                return before
        for number, before in enumerate(self.looks, 1):
            spent = len(set(before['prompts']) & set(look.prompts)) if before['quantity'] == look.quantity else 0
            if spent and not _goes_on(before, look):
                again = ''
                if look.is_anytime:
                    again = '; an anytime bound allows the same policy and settings alone, with more prompts behind'
                raise UserError(
                    f'{spent} of {len(look.prompts)} prompts are spent: {self.path}, line {number}, '
                    f'{before["told"].get("date", "no date")}, {before["verdict"]}{again}'
                )
        return None

    def add(self, look: Look, verdict: str) -> int:
        """Write a look down, before anyone is told of it; the number of its line.

        Raises:
            UserError: it cannot be written.
        """
        line = {**asdict(look), 'prompts': list(look.prompts), 'verdict': verdict}
        try:
            self.file.write(json.dumps(line, sort_keys=True) + '\n')
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise UserError(f'--ledger {self.path}: cannot be written: {error.strerror}') from error
        self.looks.append(line)
        return len(self.looks)


def _key(look: dict[str, Any]) -> tuple[Any, ...]:
    return look['subject'], look['thresholds'], look['is_anytime'], list(look['prompts']), look.get('costs')


def _goes_on(before: dict[str, Any], look: Look) -> bool:
    """Whether it is the same path of evidence, looked at once more."""
    first = list(before['prompts'])
    same = before['subject'] == look.subject and before['is_anytime'] and look.is_anytime
    same_costs = before.get('costs') == (look.costs and look.costs[: len(before.get('costs') or [])])
    return same and same_costs and list(look.prompts[: len(first)]) == first


def place_of(specs: Sequence[str], paths: Sequence[str | None], given: str | None) -> Path:
    """Where the ledger of a prompt set is: as given, or beside the one file or folder that it comes from.

    Raises:
        UserError: there is none, or there are several.
    """
    if given is not None:
        return Path(given).expanduser()
    if len(paths) != 1 or paths[0] is None or not Path(paths[0]).expanduser().exists():
        raise UserError(f'--datasets {" ".join(specs)}: is not one local file; give --ledger a file to write looks to')
    path = Path(paths[0]).expanduser()
    return path.with_name(f'{path.name}.ledger')  # no .jsonl: a folder of data is read by that ending
