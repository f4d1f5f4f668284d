"""Where the sequences of a flat row of tokens lie; a beginning that several have in common stands there once.

A sequence is a chain of stretches: the stretch of its own tokens goes on from that of the tokens it shares, which may
go on from another. Attention is causal, so what a model computes of a shared stretch is the same for all that go on
from it, and is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

LARGE = 1 << 16  # scores of a rectangle, for one head: with ten heads they stay in a core's cache
WASTE = 1 << 12  # scores computed for nothing that cost less than one more rectangle


@dataclass(frozen=True)
class Rectangle:
    """Stretches of similar length, side by side: `rows` of them, with `queries` and `past + queries` keys each.

    Queries are padded on the right, with the last of a row again; what a row goes on from is padded on the left.
    """

    rows: int
    queries: int
    past: int
    bias: Tensor  # (rows or 1, queries, past + queries) bfloat16, 0 where a query sees a key and -inf elsewhere


@dataclass(frozen=True)
class Cells:
    """The rectangles that hold all stretches, and the ways between them and the flat row."""

    rectangles: list[Rectangle]
    queries: Tensor  # flat position of each query cell, rectangle by rectangle and row by row
    keys: Tensor  # of each key cell
    own_query: Tensor  # (T,) the query cell of each flat position
    own_key: Tensor  # (T,) its key cell in its own stretch
    again: Tensor  # (M,) the key cells that hold it for stretches that go on from it
    of: Tensor  # (M,) which of `shared` each of those holds
    shared: Tensor  # (U,) flat positions that other stretches go on from, ascending


@dataclass(frozen=True)
class Layout:
    """`S` stretches of a flat row of `T` tokens, each with the keys that its queries see."""

    lengths: list[int]  # of each stretch
    depths: list[int]  # how many tokens it goes on from
    offsets: Tensor  # (S + 1,) int32, where each stretch lies
    keys: Tensor = field(repr=False)  # (K,) flat positions of each stretch's keys, its own last
    key_offsets: Tensor = field(repr=False)  # (S + 1,) int32, where they lie in `keys`

    @classmethod
    def of(cls, lengths: Sequence[int], parents: Sequence[int] | None = None) -> Layout:
        """The layout of stretches of these lengths, one after the other.

        Args:
            lengths: tokens of each.
            parents: the stretch before it that each goes on from, -1 for none; without them, none for all.
        """
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        depths: list[int] = []
        paths: list[Tensor] = []
        for n, length in enumerate(lengths):
            parent = -1 if parents is None else parents[n]
            own = torch.arange(starts[n], starts[n] + length)
            depths.append(0 if parent < 0 else len(paths[parent]))
            paths.append(own if parent < 0 else torch.cat([paths[parent], own]))
        key_offsets = torch.tensor([0, *map(len, paths)]).cumsum(0)
        return cls(
            list(lengths), depths, torch.tensor(starts, dtype=torch.int32),
            torch.cat(paths) if paths else torch.zeros(0, dtype=torch.long), key_offsets.to(torch.int32),
        )  # fmt: skip

    def to(self, device: torch.device | str) -> Layout:
        """The same on `device`."""
        if torch.device(device) == self.offsets.device:
            return self
        moved = (x.to(device, non_blocking=True) for x in (self.offsets, self.keys, self.key_offsets))
        offsets, keys, key_offsets = moved
        return replace(self, offsets=offsets, keys=keys, key_offsets=key_offsets)

    @property
    def longest(self) -> tuple[int, int]:
        """Most queries, and most keys, of a stretch."""
        return max(self.lengths, default=0), max(map(int.__add__, self.lengths, self.depths), default=0)

    @property
    def shares(self) -> bool:
        """Whether any stretch goes on from another."""
        return any(self.depths)

    def path(self, stretch: int) -> Tensor:
        """Flat positions of what a stretch goes on from, and its own; a negative number counts from the last."""
        first, end = self.key_offsets[[stretch % len(self.lengths), stretch % len(self.lengths) + 1]].tolist()
        return self.keys[first:end]

    @cached_property
    def cells(self) -> Cells:
        """For attention without a kernel for ragged rows."""
        cpu = self.to('cpu')
        own_query = torch.empty(sum(self.lengths), dtype=torch.long)
        own_key, again, of = torch.empty_like(own_query), [], []
        rectangles, queries, keys = [], [], []
        query = key = 0
        for run in _similar(self.lengths, self.depths):
            bias, of_queries, of_keys = cpu._side_by_side(run)
            rows, width = of_queries.shape
            past = of_keys.shape[1] - width
            rectangles.append(Rectangle(rows, width, past, bias.to(self.offsets.device)))
            queries.append(of_queries.flatten())
            keys.append(of_keys.flatten())
            for row, n in enumerate(run):
                flat, steps = of_queries[row, : self.lengths[n]], torch.arange(self.lengths[n])
                own_query[flat] = query + steps
                own_key[flat] = key + past + steps
                again.append(key + torch.arange(past - self.depths[n], past))
                of.append(of_keys[row, past - self.depths[n] : past])
                query, key = query + width, key + past + width
        shared, which = torch.unique(torch.cat(of), return_inverse=True)
        tensors = (torch.cat(queries), torch.cat(keys), own_query, own_key, torch.cat(again), which, shared)
        return Cells(rectangles, *(x.to(self.offsets.device) for x in tensors))

    def _side_by_side(self, run: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The bias of a rectangle, and the flat positions of its queries, (rows, Q), and of its keys, (rows, P + Q)."""
        lengths, depths = (torch.tensor([values[n] for n in run])[:, None] for values in (self.lengths, self.depths))
        width, past = int(lengths.max()), int(depths.max())
        steps = torch.arange(width)
        queries = self.offsets[run][:, None].long() + torch.minimum(steps, lengths - 1)
        place = torch.arange(past) - (past - depths)  # in what a row goes on from; negative: a pad
        before = self.keys[self.key_offsets[run][:, None].long() + place.clamp(min=0)]
        hidden = torch.cat([torch.zeros(width, past, dtype=torch.bool), steps[:, None] < steps], 1)[None]
        if bool((place < 0).any()):
            hidden = hidden | torch.cat([place < 0, torch.zeros(len(run), width, dtype=torch.bool)], 1)[:, None]
        bias = torch.zeros(hidden.shape, dtype=torch.bfloat16).masked_fill_(hidden, -torch.inf)
        return bias, queries, torch.cat([before, queries], 1)


def _similar(lengths: Sequence[int], depths: Sequence[int]) -> list[list[int]]:
    """Stretches that share a rectangle: so large that each product is worth a call, and with little in vain."""
    runs: list[list[int]] = []
    queries = past = area = 0
    for n in sorted(range(len(lengths)), key=lambda n: (depths[n], lengths[n])):
        own = lengths[n] * (lengths[n] + depths[n])
        wide, deep = max(queries, lengths[n]), max(past, depths[n])
        whole = wide * (wide + deep) * (len(runs[-1]) + 1 if runs else 1)
        if runs and whole <= area + own + WASTE and whole <= LARGE:
            runs[-1].append(n)
            queries, past, area = wide, deep, whole
        else:
            runs.append([n])
            queries, past, area = lengths[n], depths[n], own
    return runs
