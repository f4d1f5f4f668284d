"""Which beginnings the sequences of a batch have in common, so that their tokens are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

LEAST = 8  # tokens that a stretch of its own must save


@dataclass(frozen=True)
class Shared:
    """A stretch of tokens that several sequences begin with, after what `parent` holds."""

    parent: int  # number of an earlier stretch, -1 for none
    start: int  # tokens before it
    tokens: np.ndarray


def share(heads: Sequence[np.ndarray]) -> tuple[list[Shared], list[int]]:
    """Stretches that the beginnings of sequences have in common, parents first.

    Args:
        heads: of each sequence, the ids that may be shared.

    Returns:
        The stretches, and the last one that each sequence goes on from, -1 for none.
    """
    stretches: list[Shared] = []
    parents = [-1] * len(heads)
    keys = [np.asarray(head, '>u4').tobytes() for head in heads]  # they sort as the ids do
    todo = [(sorted(range(len(heads)), key=keys.__getitem__), 0, -1)]
    while todo:
        group, depth, parent = todo.pop()
        common = _common(heads[group[0]], heads[group[-1]]) if len(group) > 1 else depth
        if (common - depth) * (len(group) - 1) >= LEAST:
            stretches.append(Shared(parent, depth, heads[group[0]][depth:common]))
            depth, parent = common, len(stretches) - 1
        for n in group:
            parents[n] = parent
        if len(group) > 1:
            branches = groupby(group, lambda n: int(heads[n][common]) if len(heads[n]) > common else -1)  # noqa: B023
            todo += [(branch, depth, parent) for token, (*branch,) in branches if token >= 0]
    return stretches, parents


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many ids two sequences begin with alike."""
    shorter = min(len(one), len(other))
    differs = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(differs[0]) if len(differs) else shorter
