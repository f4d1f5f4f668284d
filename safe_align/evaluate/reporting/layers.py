"""Where the boxes of a pipeline stand: in layers along one axis, with ways between them that cross no box.

Sugiyama's method: the layer of a box is the longest way to it, a line that passes layers gets a place in each, and
boxes go where their neighbours are.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

SWEEPS = 8
Key = Hashable
Edge = tuple[Key, Key]


class Layers(NamedTuple):
    """The layers, and for each edge the keys that its line goes through; a key (box, n) is a place in layer n."""

    rows: list[list[Key]]
    ways: dict[Edge, list[Key]]


def layers_of(boxes: Sequence[Key], edges: Sequence[Edge]) -> Layers:
    """Boxes in an order in which each stands behind those that lead to it."""
    depth = dict.fromkeys(boxes, 0)
    for box in boxes:
        depth[box] = max((depth[a] + 1 for a, b in edges if b == box and a != b), default=0)
    for box in reversed(boxes):  # what nothing leads to stands just before what it leads to
        if not any(b == box for _, b in edges):
            depth[box] = min((depth[b] - 1 for a, b in edges if a == box), default=0)
    rows: list[list[Key]] = [[] for _ in range(1 + max(depth.values()))]
    for box in boxes:
        rows[depth[box]].append(box)
    ways: dict[Edge, list[Key]] = {}
    for a, b in edges:
        between: list[Key] = [(a, n) for n in range(depth[a] + 1, depth[b])]  # lines from one box run together
        for n, place in enumerate(between, depth[a] + 1):
            rows[n] += [] if place in rows[n] else [place]
        ways[a, b] = [a, *between, b]
    _sort(rows, _neighbours(ways))
    return Layers(rows, ways)


def places_of(layers: Layers, widths: dict[Key, float], gap: float) -> dict[Key, float]:
    """The middle of each key across its layer: near its neighbours, `gap` from the next; the least edge is 0."""
    neighbours = _neighbours(layers.ways)
    place = {key: 0.0 for row in layers.rows for key in row}
    for row in layers.rows:
        _spread(row, dict.fromkeys(row, 0.0), widths, gap, place)
    for sweep in range(SWEEPS):
        for row in layers.rows if sweep % 2 == 0 else reversed(layers.rows):
            wanted = {
                key: sum(place[other] for other in neighbours[key]) / len(neighbours[key])
                if neighbours.get(key) else place[key]
                for key in row
            }  # fmt: skip
            _spread(row, wanted, widths, gap, place)
    least = min(place[key] - widths[key] / 2 for key in place)
    return {key: value - least for key, value in place.items()}


def _neighbours(ways: dict[Edge, list[Key]]) -> dict[Key, list[Key]]:
    found: dict[Key, dict[Key, None]] = {}
    for way in ways.values():
        for a, b in itertools.pairwise(way):
            found.setdefault(a, {})[b] = None
            found.setdefault(b, {})[a] = None
    return {key: list(others) for key, others in found.items()}


def _sort(rows: list[list[Key]], neighbours: dict[Key, list[Key]]) -> None:
    """Each layer by the mean place of its neighbours in the layer that was sorted before."""
    for sweep in range(SWEEPS):
        order = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for n in order:
            before = rows[n - 1 if sweep % 2 == 0 else n + 1]
            rank = {key: place / len(before) for place, key in enumerate(before)}
            old = {key: place / len(rows[n]) for place, key in enumerate(rows[n])}

            def mean(key: Key, rank: dict[Key, float] = rank, old: dict[Key, float] = old) -> float:
                found = [rank[other] for other in neighbours.get(key, []) if other in rank]
                return sum(found) / len(found) if found else old[key]

            rows[n].sort(key=mean)


def _spread(
    row: list[Key], wanted: dict[Key, float], widths: dict[Key, float], gap: float, place: dict[Key, float]
) -> None:
    """Put a layer where it wants to be, as far as its keys keep their distance and their order."""
    ahead, back = dict(wanted), dict(wanted)
    for a, b in itertools.pairwise(row):
        ahead[b] = max(wanted[b], ahead[a] + (widths[a] + widths[b]) / 2 + gap)
    for b, a in itertools.pairwise(row[::-1]):
        back[a] = min(wanted[a], back[b] - (widths[a] + widths[b]) / 2 - gap)
    place.update({key: (ahead[key] + back[key]) / 2 for key in row})
