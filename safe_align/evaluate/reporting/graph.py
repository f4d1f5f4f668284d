"""The pipeline as it ran, drawn: a box a stage, a line from each to what was made from it."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from safe_align.evaluate.reporting.collect import Stage
from safe_align.evaluate.reporting.html import Markup, join, tag
from safe_align.evaluate.reporting.layers import Key, Layers, layers_of, places_of
from safe_align.evaluate.reporting.words import clipped, duration, short_hash

HEIGHT, LINE, PAD = 80, 16, 12
CONDUIT = 10  # room across for a line that passes a layer


class Box(NamedTuple):
    """What stands in a box; `href` is None outside the folder."""

    title: str
    lines: list[str]
    kind: str
    state: str
    href: str | None
    told: str


class Shape(NamedTuple):
    """How the drawing runs: down a phone, or from left to right; sizes in pixels."""

    name: str
    down: bool
    width: int
    between: int
    gap: int
    letters: int


SHAPES = (Shape('wide', False, 156, 36, 14, 20), Shape('narrow', True, 146, 30, 8, 19))


def pipeline(stages: list[Stage]) -> Markup:
    """Both drawings; the style sheet shows the one that fits."""
    boxes: dict[Key, Box] = {}
    edges: dict[tuple[Key, Key], list[str]] = {}
    for stage in stages:
        for parent in stage.parents:
            key = parent.stage.slug if parent.stage else (parent.path, parent.hash)
            if parent.stage is None:
                boxes[key] = _outside(parent.path, parent.hash, parent.kind)
            edges.setdefault((key, stage.slug), []).append(parent.role + ', changed since' * parent.changed)
        boxes[stage.slug] = _box(stage)
    placed = layers_of(list(boxes), [edge for edge in edges if edge[0] in boxes])
    told = f'Pipeline of {len(stages)} stages; the table below says the same'
    return tag('div', *(_drawing(shape, boxes, placed, edges, told) for shape in SHAPES), class_='pipeline')


def _box(stage: Stage) -> Box:
    changed = any(parent.changed for parent in stage.parents)
    spent = duration(stage.seconds) if stage.state == 'finished' else stage.state
    memory = f'{stage.memory:g} GiB' if stage.memory is not None else ''
    digest = short_hash(stage.hashes[0]) if stage.hashes else ''
    lines = [
        stage.name,
        ' · '.join(filter(None, [spent, memory])),
        'a parent has changed' if changed else ' · '.join(filter(None, [str(stage.record.get('device', '')), digest])),
    ]
    told = f'{stage.label}: {", ".join(filter(None, lines))}'
    return Box(stage.label, lines, stage.kind or '', 'changed' if changed else stage.state, f'#{stage.slug}', told)


def _outside(path: str, digest: str | None, kind: str | None) -> Box:
    name = path.rstrip('/').split('/')[-1]
    lines = [*filter(None, ['outside this folder', kind, short_hash(digest)])]
    return Box(name, lines, kind or '', 'outside', None, path)


def _drawing(
    shape: Shape, boxes: dict[Key, Box], layers: Layers, edges: dict[tuple[Key, Key], list[str]], told: str
) -> Markup:
    across, along = (shape.width, HEIGHT) if shape.down else (HEIGHT, shape.width)
    widths: dict[Key, float] = {key: across if key in boxes else CONDUIT for row in layers.rows for key in row}
    middle = places_of(layers, widths, shape.gap)
    start = {key: n * (along + shape.between) for n, row in enumerate(layers.rows) for key in row}
    length = len(layers.rows) * (along + shape.between) - shape.between
    breadth = max(middle[key] + widths[key] / 2 for key in middle)

    def point(lengthwise: float, crosswise: float) -> str:
        x, y = (crosswise, lengthwise) if shape.down else (lengthwise, crosswise)
        return f'{x + 1:.4g} {y + 1:.4g}'

    def line(way: list[Key]) -> str:
        drawn = 'M' + point(start[way[0]] + along, middle[way[0]])
        for a, b in itertools.pairwise(way):
            half = start[b] - shape.between / 2
            bend = (point(half, middle[a]), point(half, middle[b]), point(start[b] - 4 * (b in boxes), middle[b]))
            drawn += 'C' + ' '.join(bend) + ('' if b in boxes else 'L' + point(start[b] + along, middle[b]))
        return drawn

    lines = [
        tag('path', tag('title', ', '.join(edges[edge])), d=line(way), class_=f'edge {boxes[edge[0]].kind}',
            marker_end=f'url(#tip-{shape.name})')
        for edge, way in layers.ways.items()
    ]  # fmt: skip
    drawn = []
    for key, box in boxes.items():
        side, ahead = middle[key] - across / 2, start[key]
        left, top = (side, ahead) if shape.down else (ahead, side)
        drawn.append(_draw_box(box, left, top, shape))
    x, y = (breadth, length) if shape.down else (length, breadth)
    tip = tag(
        'marker', tag('path', d='M0 0L6 3L0 6z', class_='tip'), id=f'tip-{shape.name}', viewBox='0 0 6 6',
        refX=5, refY=3, markerWidth=6, markerHeight=6, orient='auto',
    )  # fmt: skip
    svg = tag(
        'svg', tip, lines, drawn, viewBox=f'0 0 {x + 2:.0f} {y + 2:.0f}', width=round(x + 2), height=round(y + 2),
        style=f'min-width:{0.85 * x:.0f}px', role='group', aria_label=told,
    )  # fmt: skip
    frame = {'tabindex': 0, 'role': 'group', 'aria_label': 'Drawing of the pipeline'}
    return tag('div', svg, class_=f'scroll {shape.name}', **frame)


def _draw_box(box: Box, x: float, y: float, shape: Shape) -> Markup:
    name, *lines = [clipped(box.title, shape.letters), *(clipped(line, shape.letters + 6) for line in box.lines)]
    texts = [tag('text', line, x=PAD, y=36 + LINE * n) for n, line in enumerate(lines)]
    frame = tag('rect', width=shape.width, height=HEIGHT, rx=5)
    side = tag('rect', y=8, width=3, height=HEIGHT - 16, class_='kind')
    narrowed = shape.width - 2 * PAD if len(name) > shape.letters - 4 else None
    named = tag('text', name, x=PAD, y=20, class_='name', textLength=narrowed, lengthAdjust='spacingAndGlyphs')
    inside = join([tag('title', box.told), frame, side, named, texts])
    if box.href:
        inside = tag('a', inside, href=box.href, aria_label=box.told)
    return tag('g', inside, transform=f'translate({x + 1:.4g} {y + 1:.4g})', class_=f'box {box.kind} {box.state}')
