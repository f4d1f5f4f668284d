"""HTML and SVG as strings. Whatever is not markup already is escaped, so data can only ever be text."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = {'meta', 'input'}
SHAPES = {'line', 'rect', 'path', 'circle', 'polyline'}
Child = Any  # Markup, text, a number, None for nothing, or a list of these


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(element: str, /, *children: Child, **attributes: Any) -> Markup:
    """An element. `class_` is class, `_` in other names is `-`; None and False leave an attribute out."""
    told = ''.join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if element in VOID:
        return Markup(f'<{element}{told}>')
    if element in SHAPES and not children:
        return Markup(f'<{element}{told}/>')
    return Markup(f'<{element}{told}>{join(children)}</{element}>')


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other."""
    return Markup(''.join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ''
    if isinstance(child, Markup):
        return child
    if isinstance(child, list):
        return join(child)
    return html.escape(str(child), quote=False)


def _attribute(key: str, value: Any) -> str:
    name = key.removesuffix('_').replace('_', '-')
    return f' {name}' if value is True else f' {name}="{html.escape(str(value))}"'
