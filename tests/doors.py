"""A bash whose programs knock at a door: what they are called with comes to the test, which says how they end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# a Python file is run by the real Python, with the arguments that the test gives back
KNOCK = """#!/bin/bash
reads=/dev/null
if [[ -p /dev/stdin ]]; then reads="$DOORS/piped"; cat > "$reads"; fi
printf '%s\\0' "$reads" "${0##*/}" "$@" > "$DOORS/asked"
mapfile -d '' answer < "$DOORS/answered"
if [[ "${answer[0]}" == exec ]]; then exec "$REAL" "${answer[@]:1}"; fi
printf '%s\\n' "${answer[1]}"
exit "${answer[0]}"
"""


class Asked(NamedTuple):
    """A program, its arguments, and the file that it reads as standard input."""

    program: str
    arguments: list[str]
    reads: Path


class Answer(NamedTuple):
    """Exit code and output; or 'exec' and arguments for the real Python."""

    code: int | str
    said: list[str]


class Doors:
    """`run(text)` lets bash run it in `where`, with no other programs than those named and those of the system."""

    def __init__(self, folder: Path, where: Path, programs: dict[str, Callable[[Asked], Answer]]) -> None:
        self.folder, self.where, self.programs = folder, where, programs
        (folder / 'bin').mkdir(parents=True)
        for name in programs:
            path = folder / 'bin' / name
            path.write_text(KNOCK, encoding='utf-8')
            path.chmod(0o755)
        for name in ('asked', 'answered'):
            os.mkfifo(folder / name)

    def run(self, text: str) -> tuple[int, str]:
        """Exit code, and what all of it said."""
        environment = {
            **os.environ, 'DOORS': str(self.folder), 'REAL': sys.executable, 'PYTHON': 'python', 'NUM_DEVICES': '1',
            'PATH': f'{self.folder / "bin"}:/usr/bin:/bin',
        }  # fmt: skip
        door = threading.Thread(target=self._answer)
        door.start()
        try:
            ended = subprocess.run(
                ['bash', '-euo', 'pipefail', '-c', text], cwd=self.where, env=environment, text=True, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        finally:
            (self.folder / 'asked').write_text('')
            door.join()
        return ended.returncode, ended.stdout

    def _answer(self) -> None:
        while words := (self.folder / 'asked').read_text(encoding='utf-8').split('\0')[:-1]:
            reads, program, *arguments = words
            try:
                code, said = self.programs[program](Asked(program, arguments, Path(reads)))
            except Exception as error:  # or bash would wait for ever
                code, said = 1, [repr(error)]
            (self.folder / 'answered').write_text('\0'.join((str(code), *said, '')), encoding='utf-8')
