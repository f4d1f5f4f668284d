"""DPO with a margin."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, MarginLoss


class Margin(MarginLoss):
    """-log sigmoid(beta D - margin_scale margin) (Touvron et al. 2023, arXiv:2307.09288, eq. 2)."""

    def of(self, gap: Gap, margin: Tensor) -> Tensor:
        """See `MarginLoss`."""
        return -logsigmoid(self.beta * gap.difference - margin)
