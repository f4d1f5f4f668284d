"""DPO with an offset."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, MarginLoss


class ODPO(MarginLoss):
    """-log sigmoid(beta D - alpha log margin), margin = gap of scores (Amini et al. 2024, arXiv:2402.10571, eq. 8).

    Pairs without a gap above 0 are left out: their loss is 0.
    """

    def __init__(self, beta: float = 0.1, alpha: float = 1.0) -> None:
        super().__init__(beta)
        self.alpha = alpha

    def of(self, gap: Gap, margin: Tensor) -> Tensor:
        """See `MarginLoss`."""
        offset = self.alpha * torch.where(margin > 0, margin, 1.0).log()
        return torch.where(margin > 0, -logsigmoid(self.beta * gap.difference - offset), 0.0)
