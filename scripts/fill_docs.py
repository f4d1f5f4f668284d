"""Fill the parts of docs/ that are made from the code: lists of what can be picked by name, and the public names.

A part stands between `<!-- made: KIND -->` and `<!-- made -->`; a part `api MODULE NAME ...` holds these names of the
module with their docstrings, or all that it exports. `make docs` writes the pages anew.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safe_align import losses, options, plugins
from safe_align.datasets import RawDataset
from safe_align.online import listings, reweighters

DOCS = Path(__file__).parents[1] / 'docs'
PART = re.compile(r'(<!-- made: (.+?) -->\n).*?(<!-- made -->)', re.DOTALL)
SECTION = re.compile(r'^(Args|Returns|Yields|Raises|Attributes|Source):\s*(.*)$')
ITEM = re.compile(r'^ {4}([\w`*, ]+?): (.*)$')
BOUNDS = 'safe_align.bounds'


class _Bare:
    """An annotation, or a function, that is shown as it is written."""

    def __init__(self, written: Any) -> None:
        written = getattr(written, '__forward_arg__', None) or getattr(written, '__name__', written)
        self.written = written if isinstance(written, str) else inspect.formatannotation(written)

    def __repr__(self) -> str:
        return self.written


def filled(page: str) -> str:
    """The page with all its parts made anew."""
    return PART.sub(lambda part: f'{part[1]}\n{_make(*part[2].split())}\n\n{part[3]}', page)


def _make(kind: str, *names: str) -> str:
    return _api(*names) if kind == 'api' else MADE[kind]()


def _bounds() -> str:
    lines = ['| bound | what | holds | least n | range | assumes |', '|---|---|---|---|---|---|']
    for name in plugins.names(BOUNDS):
        module = plugins.load(BOUNDS, name)
        holds = 'at every n' if module.FINITE_SAMPLE else 'for large n'
        holds += ', at all of them at once' if getattr(module, 'ANYTIME', False) else ''
        needs = 'needed' if module.NEEDS_RANGE else ''
        cells = (f'`{name}`', _first_line(module), holds, module.MIN_COSTS, needs, module.ASSUMES)
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


def _data() -> str:
    lines = ['| data set | also called | what is read of a row |', '|---|---|---|']
    for name in RawDataset.names():
        kind = RawDataset.find(name)
        also = ', '.join(f'`{alias}`' for alias in vars(kind).get('ALIASES', ()))
        lines.append(f'| `{name}` | {also} | {_first_line(kind)} |')
    return '\n'.join(lines)


MADE: dict[str, Callable[[], str]] = {
    'losses': lambda: options.table('loss', losses.listing()),
    'reweighters': lambda: options.table('reweighter', reweighters.listing()),
    'samplers': lambda: options.table('sampler', listings.samplers()),
    'annotators': lambda: options.table('annotator', listings.annotators()),
    'bounds': _bounds,
    'data': _data,
}


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or '').split('\n')[0].replace('|', '\\|')


def _api(module: str, *names: str) -> str:
    home = importlib.import_module(module)
    shown = [_entry(name, getattr(home, name)) for name in names or getattr(home, '__all__', ())]
    return '\n\n'.join([f'### {module}', inspect.getdoc(home) or '', *shown])


def _entry(name: str, thing: Any) -> str:
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return f'#### {name}\n\nA {type(thing).__name__}.'
    lines = [f'#### {name}', '', '```text', f'{name}{_signature(thing)}', '```', '', _told(inspect.getdoc(thing) or '')]
    if isinstance(thing, type) and issubclass(thing, dict):
        lines += ['', *(f'- `{key}`: `{_Bare(kind)}`' for key, kind in thing.__annotations__.items())]
    methods = (
        {name: one for name, one in vars(thing).items() if inspect.isfunction(one)} if inspect.isclass(thing) else {}
    )
    for own, one in methods.items():
        if not own.startswith('_') and one.__doc__:
            lines += ['', f'`{own}{_signature(one)}`', '', _told(inspect.getdoc(one) or '')]
    return '\n'.join(lines)


def _signature(thing: Any) -> str:
    if getattr(thing, '_is_protocol', False) or (inspect.isclass(thing) and issubclass(thing, dict | Exception)):
        return ''
    signature = inspect.signature(thing)
    bare = [
        one.replace(
            annotation=one.empty if one.annotation is one.empty else _Bare(one.annotation),
            default=_Bare(one.default) if inspect.isfunction(one.default) else one.default,
        )
        for one in signature.parameters.values()
    ]
    end = signature.return_annotation
    return str(signature.replace(parameters=bare, return_annotation=end if end is signature.empty else _Bare(end)))


def _told(text: str) -> str:
    """A docstring as Markdown: its sections are lists."""
    lines: list[str] = []
    for line in text.splitlines():
        if section := SECTION.match(line):
            lines += ['', f'*{section[1]}*: {section[2]}', '']
        elif item := ITEM.match(line):
            lines.append(f'- `{item[1]}`: {item[2]}')
        else:
            lines.append(line.strip() if line.startswith(' ' * 4) else line)
    return re.sub(r'\n{3,}', '\n\n', '\n'.join(lines)).strip()


def main() -> None:
    """Write the pages anew."""
    for path in sorted(DOCS.glob('*.md')):
        text = path.read_text(encoding='utf-8')
        path.write_text(filled(text), encoding='utf-8')


if __name__ == '__main__':
    main()
