"""Packed batches, and the plan that says which rows are in which micro-batch of which step and process.

A step's rows depend on seed and step number alone, so a resumed run seeks to its place. All processes compute the same
plan, so they agree on the number of micro-batches without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safe_align import distributed
from safe_align.datasets.mixture import Mixture
from safe_align.datasets.prefixes import share
from safe_align.layout import Layout


@dataclass(frozen=True)
class Packed:
    """`N` sequences as one flat row of `T` tokens, `R` of them in responses; `B` rows of `N / B` sequences each.

    What sequences begin with alike stands there once, first; each one's own tokens follow, in order.
    """

    tokens: Tensor  # (1, T) int64
    positions: Tensor  # (1, T) int64, from 0 in each sequence
    layout: Layout
    ends: Tensor  # (N,) int64, where in T the last token of each sequence stands
    response: Tensor  # (R,) int64, where in T each response token stands
    segments: Tensor  # (R,) int64, which sequence it belongs to
    fields: dict[str, Tensor]  # (B,) float32 each, or float64; 'weight' among them
    rows: list[int]  # (B,) numbers of the rows in the data set
    num_tokens: int  # of all sequences, those they share counted for each
    token_fields: dict[str, Tensor] = field(default_factory=dict)  # (R,) each
    beside: Packed | None = None  # what lies beside the rows in the data set, if anything does

    @property
    def num_sequences(self) -> int:
        """N."""
        return len(self.ends)

    def places(self, sequence: int) -> Tensor:
        """Where in T the tokens of a sequence stand."""
        return self.layout.path(sequence - self.num_sequences)

    @property
    def targets(self) -> Tensor:
        """The response tokens: (R,)."""
        return self.tokens[0, self.response]

    @property
    def weights(self) -> Tensor:
        """The weight of each sequence: (N,)."""
        weight = self.fields['weight']
        return weight.repeat_interleave(self.num_sequences // len(weight))

    @property
    def counts(self) -> dict[str, Tensor]:
        """Rows, response tokens, and desirable and other answers, each as much as its row's weight."""
        weight = self.fields['weight']
        counts = {'rows': weight.sum(), 'tokens': self.weights[self.segments].sum()}
        if (labels := self.fields.get('labels')) is not None:
            counts |= {'desirable': (weight * labels).sum(), 'undesirable': (weight * (1 - labels)).sum()}
        return counts

    def to(self, device: torch.device | str) -> Packed:
        """The same on `device`."""
        moved: dict[str, Any] = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ('tokens', 'positions', 'ends', 'response', 'segments')
        }
        for columns in ('fields', 'token_fields'):
            values = getattr(self, columns)
            moved[columns] = {name: value.to(device, non_blocking=True) for name, value in values.items()}
        return replace(self, **moved, layout=self.layout.to(device), beside=self.beside and self.beside.to(device))


def pack(
    sequences: Sequence[tuple[np.ndarray, np.ndarray]],
    fields: dict[str, np.ndarray] | None = None,
    rows: Sequence[int] = (),
) -> Packed:
    """Put sequences, each its ids and which of them are response, one after the other.

    They share what comes before the last token of their prompts: what follows from that token is each one's own.
    """
    stretches, parents = share([ids[: _shareable(flags)] for ids, flags in sequences])
    depths = [stretches[n].start + len(stretches[n].tokens) if n >= 0 else 0 for n in parents]
    own = [(ids[depth:], flags[depth:]) for (ids, flags), depth in zip(sequences, depths, strict=True)]
    tokens = [*(one.tokens for one in stretches), *(ids for ids, _ in own)]
    starts = [*(one.start for one in stretches), *depths]
    layout = Layout.of([len(ids) for ids in tokens], [*(one.parent for one in stretches), *parents])
    first = sum(len(one.tokens) for one in stretches)
    response = torch.from_numpy(np.flatnonzero(np.concatenate([flags for _, flags in own]).astype(bool)))
    sequence_of = torch.repeat_interleave(torch.arange(len(own)), torch.tensor([len(ids) for ids, _ in own]))
    fields = fields if fields is not None else {'weight': np.ones(len(sequences), np.float32)}
    return Packed(
        tokens=torch.from_numpy(np.concatenate(tokens).astype(np.int64))[None],
        positions=torch.cat([start + torch.arange(len(ids)) for start, ids in zip(starts, tokens, strict=True)])[None],
        layout=layout,
        ends=layout.offsets[len(stretches) + 1 :].long() - 1,
        response=first + response,
        segments=sequence_of[response],
        fields={name: torch.from_numpy(value) for name, value in fields.items()},
        rows=list(rows),
        num_tokens=sum(len(ids) for ids, _ in sequences),
    )


def _shareable(is_response: np.ndarray) -> int:
    """Tokens before the one that the first response token is drawn from; without a response, all but the last."""
    first = int(is_response.argmax()) if is_response.any() else len(is_response)
    return max(first - 1, 0)


def collate(data: Mixture, rows: Sequence[int], weights: Sequence[float] | None = None) -> Packed:
    """The packed batch of these rows of `data`; `weights` multiply the rows' own."""
    sequences = [sequence for number in rows for sequence in data.sequences(number)]
    fields = [data.fields(number) for number in rows]
    columns = {name: np.stack([row[name] for row in fields]) for name in fields[0]}
    if weights is not None:
        columns['weight'] = columns['weight'] * np.asarray(weights, np.float32)
    beside = collate(data.beside, rows, weights) if data.beside else None
    tokens = [data.token_fields(number) for number in rows]
    token_fields = {name: torch.from_numpy(np.concatenate([row[name] for row in tokens])) for name in tokens[0]}
    return replace(pack(sequences, columns, rows), beside=beside, token_fields=token_fields)


def split_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Runs of the length-sorted order, each of at most `budget` tokens (or one that is longer by itself)."""
    runs: list[list[int]] = []
    room = 0
    for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        if not runs or lengths[n] > room:
            runs.append([])
            room = budget
        runs[-1].append(n)
        room -= int(lengths[n])
    return runs


def even_runs(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """As `split_by_tokens`, and as many runs on every process, some of them empty, so that collectives meet."""
    runs = split_by_tokens(lengths, budget)
    return stretch(runs, distributed.highest_over_ranks(len(runs)))


@dataclass(frozen=True)
class Batches:
    """The steps of a training run over `data`.

    Args:
        data: the rows.
        batch_size: rows of a step on one process.
        budget: tokens of a micro-batch.
        seed: of the order.
        rank: number of this process.
        world_size: how many there are.
        shuffle: whether each epoch has an order of its own; without it, rows come as they are.
        least: rows that the last step of an epoch must have; fewer are left out of that epoch.
    """

    data: Mixture
    batch_size: int
    budget: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True
    least: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last may have fewer rows."""
        steps, rest = divmod(len(self.data), self.batch_size * self.world_size)
        return steps + (rest >= self.least)

    def rows(self, step: int) -> np.ndarray:
        """The rows of a step, counted over all epochs, on all processes."""
        epoch, step = divmod(step, self.steps_per_epoch)
        size = self.batch_size * self.world_size
        order = self._order(epoch)
        return order[step * size : (step + 1) * size]

    def step(self, step: int) -> list[Packed]:
        """The micro-batches of a step on this process; every process has as many."""
        rows = self.rows(step)
        lengths = self.data.lengths[rows]
        by_length = np.argsort(lengths, kind='stable')[::-1]
        # dealt out back and forth, so that each process gets about as many tokens
        deal = [*range(self.world_size), *reversed(range(self.world_size))]
        shares: list[list[int]] = [[] for _ in range(self.world_size)]
        for n, row in enumerate(by_length):
            shares[deal[n % len(deal)]].append(int(row))
        splits = [split_by_tokens(lengths[share], self.budget) for share in shares]
        most = max(map(len, splits))
        share, runs = shares[self.rank], stretch(splits[self.rank], most)
        return [
            collate(self.data, [int(rows[share[n]]) for n in run])
            if run
            else collate(self.data, [int(rows[0])], weights=[0.0])  # so that collectives meet; it counts for nothing
            for run in runs
        ]

    def epoch(self) -> Iterator[list[Packed]]:
        """The steps of the first epoch, for evaluation."""
        return (self.step(step) for step in range(self.steps_per_epoch))

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.data))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.data))


def stretch(runs: list[list[int]], count: int) -> list[list[int]]:
    """The same rows in exactly `count` runs, some of them empty if there are too few rows."""
    runs = [list(run) for run in runs]
    while len(runs) < count:
        longest = max(range(len(runs)), key=lambda n: len(runs[n]), default=None)
        if longest is None or len(runs[longest]) < 2:
            runs.append([])
            continue
        run = runs[longest]
        runs[longest : longest + 1] = [run[: len(run) // 2], run[len(run) // 2 :]]
    return runs
