"""The hinge of RSO."""

from __future__ import annotations

from torch import Tensor

from safe_align.losses._base import Gap, GapLoss


class Hinge(GapLoss):
    """max(0, 1 - beta D) (RSO, Liu et al. 2023, arXiv:2309.06657, table 1)."""

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__(beta)

    def of(self, gap: Gap) -> Tensor:
        """See `GapLoss`."""
        return (1 - self.beta * gap.difference).clamp(min=0)
