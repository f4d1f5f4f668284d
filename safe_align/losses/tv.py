"""Total variation to soft labels."""

from __future__ import annotations

from torch import Tensor

from safe_align.losses._base import Gap, MarginLoss


class TV(MarginLoss):
    """|sigmoid(beta D) - sigmoid(margin_scale margin)| (arXiv:2409.19605)."""

    def of(self, gap: Gap, margin: Tensor) -> Tensor:
        """See `MarginLoss`."""
        return ((self.beta * gap.difference).sigmoid() - margin.sigmoid()).abs()
