"""Anchored preference optimisation, zero."""

from __future__ import annotations

from torch import Tensor

from safe_align.losses._base import Gap, GapLoss


class APOZero(GapLoss):
    """1 - sigmoid(beta u_w) + sigmoid(beta u_l): chosen up, rejected down (arXiv:2408.06266)."""

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__(beta)

    def of(self, gap: Gap) -> Tensor:
        """See `GapLoss`."""
        return (-self.beta * gap.chosen).sigmoid() + (self.beta * gap.rejected).sigmoid()
