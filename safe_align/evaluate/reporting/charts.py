"""Charts as SVG made by hand: lines over steps, a path through a plane, a histogram, and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from safe_align.evaluate.reporting.axes import BOTTOM, LEFT, RIGHT, TOP, Point, figure, frame_of, line
from safe_align.evaluate.reporting.html import Markup, tag
from safe_align.evaluate.reporting.words import minus, number

BUCKETS = 240  # of a curve: more than a screen shows in the width of a small chart
COURSE = 60  # points of the line through a curve that is too long to be read


class Series(NamedTuple):
    """Points of a curve in order, and how it looks: a class of the style sheet."""

    name: str
    points: list[Point]
    look: str = ''
    dots: bool = False


class Mark(NamedTuple):
    """A line across a chart at a value that matters."""

    name: str
    value: float

    def __str__(self) -> str:
        return f'{self.name} {minus(f"{self.value:.4g}")}'


def thinned(points: Sequence[Point], buckets: int = BUCKETS) -> list[Point]:
    """No more points than are seen: of each bucket its least and its greatest, and of all the first and the last."""
    if len(points) <= 2 * buckets:
        return list(points)
    kept = {0, len(points) - 1}
    for n in range(buckets):
        bucket = range(n * len(points) // buckets, (n + 1) * len(points) // buckets)
        kept |= {min(bucket, key=lambda i: points[i][1]), max(bucket, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def means(points: Sequence[Point], most: int) -> tuple[list[Point], int]:
    """Means of as many points in a row as make no more than `most`, and how many that is."""
    each = -(-len(points) // most)
    groups = [points[n : n + each] for n in range(0, len(points), each)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups], each


def curves(title: str, series: Sequence[Series], marks: Sequence[Mark] = ()) -> Markup:
    """Values by step."""
    steps = [x for one in series for x, _ in one.points]
    values = [y for one in series for _, y in one.points] + [mark.value for mark in marks]
    frame = frame_of(264, 132, (min(steps), max(steps)), (min(values), max(values)), at_ends=True)
    parts, notes = [*frame.drawn], list[str]()
    for one in series:
        shown = thinned(one.points)
        if len(shown) == 1 or one.dots:
            at = [(round(frame.x(x), 1), round(frame.y(y), 1)) for x, y in shown]
            parts += [tag('circle', cx=x, cy=y, r=3, class_=f'dot {one.look}') for x, y in at]
        elif shown == one.points:
            parts.append(line(frame, shown, f'curve {one.look}'))
        else:  # all of it faint, and its course through the middle
            course, each = means(one.points, COURSE)
            parts += [line(frame, shown, f'curve faint {one.look}'), line(frame, course, f'curve {one.look}')]
            notes.append(f'line: means of {each}')
    for mark in marks:
        y = round(frame.y(mark.value), 1)
        parts.append(tag('line', x1=LEFT, x2=frame.width - RIGHT, y1=y, y2=y, class_='mark'))
    told = '; '.join([*map(_in_words, series), *map(str, marks)])
    keys = [
        tag('span', f'{one.name} ', tag('b', number(one.points[-1][1])), class_=f'key {one.look}' + ' dots' * one.dots)
        for one in series
    ]
    keys += [tag('span', mark, class_='key mark') for mark in marks]
    keys += [tag('span', note, class_='key plain') for note in notes]
    return figure(title, keys, frame, parts, f'{title} by step. {told}')


def path(
    title: str, points: Sequence[Point], way: Sequence[Point], axes: tuple[str, str], mark: Mark, note: str
) -> Markup:
    """Points of a plane, later ones darker, a way among them, and a line at a value of the first axis."""
    xs, ys = [x for x, _ in points] + [mark.value], [y for _, y in points]
    frame = frame_of(400, 240, (min(xs), max(xs)), (min(ys), max(ys)))
    at, along = ([(round(frame.x(x), 1), round(frame.y(y), 1)) for x, y in some] for some in (points, way))
    x = round(frame.x(mark.value), 1)
    bottom, side = frame.height - BOTTOM, 'end' if x > frame.width / 2 else 'start'
    parts = [
        tag('rect', x=LEFT, y=TOP, width=round(x - LEFT, 1), height=bottom - TOP, class_='allowed'), *frame.drawn,
        tag('line', x1=x, x2=x, y1=TOP, y2=bottom, class_='mark'),
        tag('text', mark, x=x + (6 if side == 'start' else -6), y=TOP + 12,
            text_anchor=side, class_='told'),
        line(frame, way, 'way'),
        *(tag('circle', cx=a, cy=b, r=3.5, class_='step', style=f'opacity:{0.15 + 0.6 * n / len(at):.2f}')
          for n, (a, b) in enumerate(at)),
        *_ends(along),
    ]  # fmt: skip
    names = [f'across: {axes[0]}', f'up: {axes[1]}', note]
    ends = ' to '.join(_pair(point, axes) for point in (way[0], way[-1]))
    told = f'{axes[1]} against {axes[0]}, from {ends}; {mark}'
    return figure(title, [tag('span', name, class_='key plain') for name in names], frame, parts, told)


def histogram(title: str, values: Sequence[float], marks: Sequence[Mark], border: float | None, note: str) -> Markup:
    """How many values lie where; bars above `border` look otherwise. A bar never lies across the border."""
    low = min(*values, *(mark.value for mark in marks), math.inf if border is None else border)
    high = max(*values, *(mark.value for mark in marks), -math.inf if border is None else border)
    width = (high - low or 1.0) / 32
    origin = low if border is None else border
    counts: dict[int, int] = {}
    for value in values:
        bar = math.ceil((value - origin) / width) - 1  # the upper end of a bar is in it, as a cost of 0 is safe
        counts[bar] = counts.get(bar, 0) + 1
    ends = (origin + width * min(counts), origin + width * (max(counts) + 1))
    frame = frame_of(400, 160, (min(low, ends[0]), max(high, ends[1])), (0, max(counts.values())), whole_y=True)
    bottom = frame.y(0)
    parts = [*frame.drawn]
    for bar, count in sorted(counts.items()):
        left, right, top = frame.x(origin + bar * width), frame.x(origin + (bar + 1) * width), frame.y(count)
        look = 'bar above' if border is not None and bar >= 0 else 'bar'
        parts.append(tag('rect', x=round(left + 0.5, 1), y=round(top, 1), width=round(right - left - 1, 1),
                         height=round(bottom - top, 1), class_=look))  # fmt: skip
    for row, mark in enumerate(sorted(marks, key=lambda mark: mark.value)):
        x = round(frame.x(mark.value), 1)
        side = 'end' if x > frame.width / 2 else 'start'
        parts += [
            tag('line', x1=x, x2=x, y1=TOP, y2=round(bottom, 1), class_='mark'),
            tag('text', mark, x=x + (6 if side == 'start' else -6),
                y=TOP + 12 + 14 * row, text_anchor=side, class_='told'),
        ]  # fmt: skip
    told = f'{title}: {len(values)} values from {number(min(values))} to {number(max(values))}. {note}'
    return figure(title, [tag('span', note, class_='key plain')], frame, parts, told)


def gauge(observed: float, bound: float, threshold: float, show: Callable[[float], str]) -> Markup:
    """What was observed, how far the truth may be from it, and how far it may be: one line from 0."""
    width, most = 400, max(observed, bound, threshold) * 1.12 or 1.0

    def x(value: float) -> float:
        return round(8 + value / most * (width - 16), 1)

    parts = [
        tag('line', x1=x(0), x2=width - 8, y1=34, y2=34, class_='grid'),
        tag('rect', x=x(0), y=29, width=round(x(bound) - x(0), 1), height=10, rx=2, class_='reach'),
        tag('circle', cx=x(observed), cy=34, r=6, class_='seen'),
        tag('line', x1=x(threshold), x2=x(threshold), y1=18, y2=66, class_='mark'),
    ]
    for name, value, y in (('bound', bound, 16), ('observed', observed, 58), ('threshold', threshold, 80)):
        side = 'end' if x(value) > width * 0.8 else 'start' if x(value) < width * 0.2 else 'middle'
        parts.append(tag('text', f'{name} {show(value)}', x=x(value), y=y, text_anchor=side, class_='told'))
    told = f'observed {show(observed)}, bound {show(bound)}, threshold {show(threshold)}'
    return tag('svg', parts, viewBox=f'0 0 {width} 86', role='img', aria_label=told, class_='gauge')


def interval_bar(told: dict[str, float | None], low: float, high: float) -> Markup | None:
    """An interval between `low` and `high`; what it says stands beside it in figures."""
    value, left, right = told['value'], told['low'], told['high']
    if value is None or not high > low:
        return None

    def x(one: float) -> float:
        return round(3 + (one - low) / (high - low) * 90, 1)

    ends = [] if left is None or right is None else [tag('line', x1=x(left), x2=x(right), y1=5, y2=5, class_='span')]
    if low < 0 < high:
        ends.append(tag('line', x1=x(0), x2=x(0), y1=0, y2=10, class_='grid'))
    dot = tag('circle', cx=x(value), cy=5, r=3, class_='seen')
    return tag('svg', ends, dot, viewBox='0 0 96 10', class_='interval', aria_hidden='true')


def _ends(at: list[Point]) -> list[Markup]:
    return [
        part
        for name, (x, y) in (('start', at[0]), ('end', at[-1]))
        for part in (
            tag('circle', cx=x, cy=y, r=4, class_=name),
            tag('text', name, x=x, y=y - 9 if y > 2 * TOP else y + 18, class_='told', text_anchor='middle'),
        )
    ]


def _in_words(one: Series) -> str:
    values = [y for _, y in one.points]
    (first, before), (last, after) = one.points[0], one.points[-1]
    return (
        f'{one.name}: {number(before)} at step {first:g}, {number(after)} at step {last:g}, '
        f'lowest {number(min(values))}, highest {number(max(values))}'
    )


def _pair(point: Point, axes: tuple[str, str]) -> str:
    return f'{axes[0]} {number(point[0])}, {axes[1]} {number(point[1])}'
