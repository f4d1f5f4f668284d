"""Relative entropy to soft labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, MarginLoss


class KL(MarginLoss):
    """KL(sigmoid(beta D) || sigmoid(margin_scale margin)), of two outcomes (arXiv:2409.19605)."""

    def of(self, gap: Gap, margin: Tensor) -> Tensor:
        """See `MarginLoss`."""
        log_p, log_not_p = logsigmoid(self.beta * gap.difference), logsigmoid(-self.beta * gap.difference)
        return log_p.exp() * (log_p - logsigmoid(margin)) + log_not_p.exp() * (log_not_p - logsigmoid(-margin))
