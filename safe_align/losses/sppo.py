"""Self-play preference optimisation."""

from __future__ import annotations

from torch import Tensor

from safe_align.losses._base import Gap, GapLoss


class SPPO(GapLoss):
    """(u_w - 1 / (2 beta))^2 + (u_l + 1 / (2 beta))^2, hard labels (Wu et al. 2024, arXiv:2405.00675)."""

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__(beta)

    def of(self, gap: Gap) -> Tensor:
        """See `GapLoss`."""
        aim = 1 / (2 * self.beta)
        return (gap.chosen - aim).square() + (gap.rejected + aim).square()
