"""Where the responses of pairs are scored."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from safe_align.datasets.packing import Packed
from safe_align.engine import Engine

PairLoss = Callable[[Tensor, Tensor, Packed, Tensor], tuple[Tensor, dict[str, Tensor]]]  # as `pair_scores` returns


def ends(batch: Packed) -> Tensor:
    """The last positions in the flat row of both responses of each pair: (2, B)."""
    return batch.ends.view(-1, 2).t()


def pair_scores(engine: Engine, batch: Packed, token_wise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of first and second responses at their ends, or token by token.

    Returns:
        Two of (M,), and the pair each is of, (M,): M = B at the ends; token-wise, all positions of a pair from where
        its responses part to the end of the shorter one.
    """
    if token_wise:
        where, pairs = _aligned(batch)
    else:
        where = ends(batch)
        pairs = torch.arange(where.shape[1], device=where.device)
    scores = engine(batch.tokens, batch.positions, batch.layout, where.flatten())
    first, second = scores.view(2, -1)
    return first, second, pairs


def _aligned(batch: Packed) -> tuple[Tensor, Tensor]:
    """Positions in the flat row of both responses of each pair, token by token, (2, M), and the pair, (M,)."""
    tokens, lasts = batch.tokens[0], batch.ends.tolist()
    # Both responses of a pair answer one prompt, so their sequences share the same beginning.
    starts = batch.layout.offsets[-batch.num_sequences - 1 : -1].tolist()
    firsts, seconds, pairs = [], [], []
    for pair in range(batch.num_sequences // 2):
        start, middle = starts[2 * pair : 2 * pair + 2]
        shorter = min(lasts[2 * pair] - start, lasts[2 * pair + 1] - middle) + 1
        differs = (tokens[start : start + shorter] != tokens[middle : middle + shorter]).nonzero()
        part = int(differs[0]) if len(differs) else shorter - 1
        steps = torch.arange(part, shorter, device=tokens.device)
        firsts.append(start + steps)
        seconds.append(middle + steps)
        pairs.append(torch.full_like(steps, pair))
    return torch.stack([torch.cat(firsts), torch.cat(seconds)]), torch.cat(pairs)
