"""DPO with soft labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, MarginLoss


class RevKL(MarginLoss):
    """-p log sigmoid(beta D) - (1 - p) log sigmoid(-beta D), p = sigmoid(margin_scale margin) (arXiv:2409.19605)."""

    def of(self, gap: Gap, margin: Tensor) -> Tensor:
        """See `MarginLoss`."""
        logits, p = self.beta * gap.difference, margin.sigmoid()
        return -p * logsigmoid(logits) - (1 - p) * logsigmoid(-logits)
