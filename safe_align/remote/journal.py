"""Rows that are written down as they come, in a file that a killed run leaves whole.

What `append` has returned for is on the disk. A run that was killed within it leaves at most one line that is not
whole, the last; who opens the file next removes that one and says so. Nothing else is ever removed or written anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from safe_align.config import UserError

BLOCK = 1 << 16  # bytes read at a time in search of the last line


class Journal:
    """An append-only file of JSON objects, a line each; no other process can have it as long as this one is open.

    Args:
        path: the file; it and its folder are made if they are not there.
        say: told, in one line, of a half-written line that was removed.
        waits: whether to wait for another run that has it, after a word to `say`.

    Raises:
        UserError: another run has it, or it cannot be opened.
    """

    def __init__(self, path: str | Path, say: Callable[[str], object], waits: bool = False) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f'{self.path}: cannot be opened: {error.strerror}') from error
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waits:
                    raise
                say(f'{self.path}: another run, or what is left of one, still writes to it; waiting for its end')
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self._repair(say)
        except OSError as error:
            os.close(self._file)
            what = 'another run holds it' if isinstance(error, BlockingIOError) else f'cannot be used: {error.strerror}'
            raise UserError(f'{self.path}: {what}') from error

    @classmethod
    def handed(cls, path: str | Path, file: int) -> Journal:
        """A journal that another process has opened and handed over; it is held until both have let it go."""
        journal = cls.__new__(cls)
        journal.path, journal._file = Path(path), file
        return journal

    def fileno(self) -> int:
        """The open file."""
        return self._file

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let others have it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows so far, in the order in which they were appended.

        Raises:
            UserError: a line is no JSON object, so it was not written here; it says which.
        """
        with self.path.open('rb') as file:
            for number, line in enumerate(file, 1):
                row = _read(line)
                if row is None:
                    raise UserError(f'{self.path}, line {number}: is no JSON object: {line[:80]!r:.80}')
                yield row

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows down; once this returns, they outlive this process and the machine's power.

        Raises:
            UserError: they cannot be written, such as on a full disk; then none of them is.
            ValueError: a number in them is not finite.
        """
        left = memoryview(b''.join(json.dumps(row, allow_nan=False).encode() + b'\n' for row in rows))
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while left:  # once, but for a disk that is full or a signal
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except BaseException as error:
            if left:
                os.ftruncate(self._file, end)  # or the next row would be written behind half of this one
            if isinstance(error, OSError):
                raise UserError(f'{self.path}: cannot be written: {error.strerror}') from error
            raise

    def _repair(self, say: Callable[[str], object]) -> None:
        """Remove a last line without an end, unless the end is all that it lacks."""
        size = os.fstat(self._file).st_size
        start = self._after_last_newline(size)
        if start < size:
            if _read(os.pread(self._file, size - start, start)) is not None:  # no part of an object is an object
                os.write(self._file, b'\n')
            else:
                os.ftruncate(self._file, start)
                say(f'{self.path}: its last line was half written, {size - start} bytes, and has been removed')
        os.fsync(self._file)
        folder = os.open(self.path.parent, os.O_RDONLY)  # a file is safe once its name is
        try:
            with contextlib.suppress(OSError):  # some file systems sync no folders
                os.fsync(folder)
        finally:
            os.close(folder)

    def _after_last_newline(self, end: int) -> int:
        while end:
            start = max(0, end - BLOCK)
            found = os.pread(self._file, end - start, start).rfind(b'\n')
            if found >= 0:
                return start + found + 1
            end = start
        return 0


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
