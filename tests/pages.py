"""The README and docs/ as programs: their fenced blocks, the commands in their lines, and the text around them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
PROGRAMS = ('bash', 'python', 'torchrun', 'make', 'pip', 'vllm', 'docker', 'git')
_FENCE = re.compile(r'^ *```(\w*)\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
_INLINE = re.compile(rf'(?<!`)`((?:{"|".join(PROGRAMS)}) [^`]+)`(?!`)')


class Piece(NamedTuple):
    """Something that runs: `kind` is 'bash' or 'python', `line` where it begins."""

    line: int
    kind: str
    text: str


def prose_of(text: str) -> str:
    """The page without its fenced blocks; lines keep their numbers."""
    return _FENCE.sub(lambda block: '\n' * block[0].count('\n'), text)


def pieces_of(text: str) -> list[Piece]:
    """All blocks of bash and Python, and all commands within lines, in the order of the page."""
    found = [
        Piece(text.count('\n', 0, block.start()) + 1, block[1], textwrap.dedent(block[2]))
        for block in _FENCE.finditer(text)
        if block[1] in ('bash', 'python')
    ]
    for number, line in enumerate(prose_of(text).splitlines(), 1):
        found += [Piece(number, 'bash', one[1].replace(r'\|', '|')) for one in _INLINE.finditer(line)]
    return sorted(found, key=lambda piece: piece.line)
