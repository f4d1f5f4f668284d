"""Where messages come from and answers go: a terminal, or pipes."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from safe_align.serve.text import printable

DIM, STYLES = '2', {'red': '1;31', 'blue': '1;34'}  # of ECMA-48's Select Graphic Rendition


class Terminal:
    """Reads from stdin and writes to stdout; a prompt and colours are for terminals alone."""

    def __init__(self) -> None:
        for stream in (sys.stdin, sys.stdout):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors='replace')  # a byte that is no character, a character that is not to be had
        self.is_coloured = sys.stdout.isatty() and not os.environ.get('NO_COLOR') and os.environ.get('TERM') != 'dumb'
        self.is_dialogue = sys.stdin.isatty() and sys.stdout.isatty()
        if self.is_dialogue:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  # gives input() its editing and history, which stays in memory

    def read(self) -> str:
        """The next message; a backslash at the end of a line takes in the next.

        Raises:
            EOFError: there is none.
        """
        line = input('> ' * self.is_dialogue)
        while line.endswith('\\'):
            try:
                line = f'{line[:-1]}\n{input("  " * self.is_dialogue)}'
            except EOFError:
                return line[:-1]
        return line

    def write(self, text: str) -> None:
        """Show a part of a line, or several, at once."""
        print(printable(text), end='', flush=True)

    def line(self, text: str = '', style: str | None = None) -> None:
        """Show a line."""
        text = printable(text)
        print(f'\x1b[{style}m{text}\x1b[0m' if style and text and self.is_coloured else text, flush=True)

    def note(self, text: str) -> None:
        """Show a remark that is no answer."""
        self.line(f'({text})', DIM)


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Within it, Ctrl-C makes the function that is given raise KeyboardInterrupt; a second Ctrl-C raises it at once.

    So what is under way is left between two tokens and not in the middle of one.
    """
    asked = False

    def hear(_: int, __: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
