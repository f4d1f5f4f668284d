"""Advantages of tokens, as functions of tensors. `R` response tokens of `N` sequences, packed one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, segments: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns, eq. 16 of arXiv:1506.02438: (R,), (R,), (R,) -> (R,), (R,).

    After the last token of a sequence there is nothing: its value is 0, and the next sequence's is not seen.
    """
    num_segments = int(segments[-1]) + 1 if len(segments) else 0
    counts = torch.bincount(segments, minlength=num_segments)
    starts = counts.cumsum(0) - counts
    steps = torch.arange(len(segments), device=segments.device) - starts[segments]
    length = int(counts.max()) if num_segments else 0
    grid = values.new_zeros(2, num_segments, length + 1)
    grid[0, segments, steps], grid[1, segments, steps] = rewards, values
    deltas = grid[0, :, :-1] + gamma * grid[1, :, 1:] - grid[1, :, :-1]
    advantages = torch.zeros_like(deltas)
    running = deltas.new_zeros(num_segments)
    for step in reversed(range(length)):
        running = deltas[:, step] + gamma * lam * running
        advantages[:, step] = running
    flat = advantages[segments, steps]
    return flat, flat + values


def lagrangian(reward: Tensor, costs: Sequence[Tensor], multipliers: Sequence[float], normalize: bool = True) -> Tensor:
    """(A_r - sum lambda_i A_i) / (1 + sum lambda_i), eq. 16 of arXiv:2310.12773; without constraints, A_r: (R,).

    The division keeps the step size while lambda grows. Where reward and costs hold the divergence each, it also keeps
    the divergence's weight while the task's shrinks, so the fixed point is that of kl_coeff x (1 + lambda).
    """
    total = reward
    for cost, multiplier in zip(costs, multipliers, strict=True):
        total = total - multiplier * cost
    return total / (1 + sum(multipliers)) if normalize else total
