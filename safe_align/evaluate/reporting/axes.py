"""Axes: a plane of numbers on a plane of pixels, with round numbers at its sides."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from safe_align.evaluate.reporting.html import Markup, tag
from safe_align.evaluate.reporting.words import minus

Point = tuple[float, float]
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 20


class Frame(NamedTuple):
    """A plane of numbers on a plane of pixels."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    drawn: list[Markup]
    width: int
    height: int


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers between two others: steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    exponent = math.floor(math.log10(rough))
    power = 10.0**exponent
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 6 - exponent) for n in range(first, last + 1)]


def frame_of(
    width: int, height: int, xs: Point, ys: Point, *, at_ends: bool = False, whole_y: bool = False
) -> Frame:  # fmt: skip
    """Axes with round numbers; all of both ranges is inside."""
    (x0, x1), (y0, y1) = _wide(xs), _wide(ys)

    def x(value: float) -> float:
        return LEFT + (value - x0) / (x1 - x0) * (width - LEFT - RIGHT)

    def y(value: float) -> float:
        return height - BOTTOM - (value - y0) / (y1 - y0) * (height - TOP - BOTTOM)

    across = sorted({*xs}) if at_ends else ticks(*xs, most=width // 70)
    up = [t for t in ticks(*ys, most=height // 33) if not whole_y or t == round(t)]
    drawn = [tag('line', x1=LEFT, x2=width - RIGHT, y1=round(y(t), 1), y2=round(y(t), 1), class_='grid') for t in up]
    drawn += [tag('text', _tick(t), x=LEFT - 6, y=round(y(t) + 3.5, 1), text_anchor='end') for t in up]
    side = iter(('start', 'end') if at_ends else ())
    for t in across:
        name = f'{t:,.0f}' if at_ends else _tick(t)
        drawn.append(tag('text', name, x=round(x(t), 1), y=height - 5, text_anchor=next(side, 'middle')))
    return Frame(x, y, drawn, width, height)


def line(frame: Frame, points: Sequence[Point], look: str) -> Markup:
    """Points joined in order."""
    at = ' '.join(f'{round(frame.x(x), 1):g},{round(frame.y(y), 1):g}' for x, y in points)
    return tag('polyline', points=at, class_=look)


def figure(title: str, keys: list[Markup], frame: Frame, parts: list[Markup], told: str) -> Markup:
    """A chart with its name and what its marks mean."""
    drawing = tag('svg', parts, viewBox=f'0 0 {frame.width} {frame.height}', role='img', aria_label=told)
    return tag('figure', tag('figcaption', tag('strong', title), keys), drawing)


def _wide(ends: Point) -> Point:
    low, high = ends
    return (low, high) if high > low else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _tick(value: float) -> str:
    text = f'{value:.4g}' if 1e-3 <= abs(value) < 1e5 or value == 0 else f'{value:.0e}'
    return minus(re.sub(r'e\+?(-?)0*', r'e\1', text))
