"""What a stage has done so far, as rows of journals, one a process, until its result is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safe_align import distributed
from safe_align.ownership import remove
from safe_align.remote.journal import Journal

Key = tuple[str, int]  # a prompt's name, and a response's number


class Parts:
    """The journals of a run, of which this process writes one.

    What one process or several wrote before the run was killed is there again, whatever their number is now.

    Args:
        folder: where they are.
        key: what a row is of; of two rows that are of the same, the first counts.
        say: told of lines that were half written.

    Attributes:
        found: the rows that were there, the same on every process.
    """

    def __init__(self, folder: Path, say: Callable[[str], object], key: Callable[[Mapping[str, Any]], Key]) -> None:
        self.folder, self.key = folder, key
        distributed.on_main(lambda: self._repair(say))
        self.journal = Journal(self.folder / f'{distributed.rank()}.jsonl', say)
        self.found = self.lines()
        distributed.barrier()  # or a quick process writes while a slow one reads, and they disagree on what is left

    def _repair(self, say: Callable[[str], object]) -> None:
        for path in sorted(self.folder.glob('*.jsonl')):
            Journal(path, say).close()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write down what was done."""
        self.journal.append(rows)

    def lines(self) -> dict[Key, bytes]:
        """All rows of all processes, as they were written."""
        found: dict[Key, bytes] = {}
        for path in sorted(self.folder.glob('*.jsonl')):
            with path.open('rb') as file:
                for line in file:
                    found.setdefault(self.key(json.loads(line)), line)
        return found

    def remove(self) -> None:
        """When the result is whole."""
        self.journal.close()
        distributed.barrier()
        if distributed.is_main():
            remove(self.folder)


def missing(done: Iterable[Key], names: Sequence[str], samples: int) -> list[int]:
    """The numbers of the prompts of which not all responses are there."""
    found = set(done)
    return [n for n, name in enumerate(names) if any((name, sample) not in found for sample in range(samples))]
