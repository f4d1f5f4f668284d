"""Noise contrastive alignment."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, GapLoss


class NCA(GapLoss):
    """-log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2, r = beta u (arXiv:2402.05369)."""

    def __init__(self, beta: float = 0.01) -> None:
        super().__init__(beta)

    def of(self, gap: Gap) -> Tensor:
        """See `GapLoss`."""
        chosen, rejected = self.beta * gap.chosen, self.beta * gap.rejected
        return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2
