"""Efficient exact optimisation."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, GapLoss


class EXO(GapLoss):
    """KL from sigmoid(beta D) to the label, smoothed by eps (Ji et al. 2024, arXiv:2402.00856, eq. 16)."""

    def __init__(self, beta: float = 0.1, eps: float = 0.001) -> None:
        super().__init__(beta)
        self.eps = eps

    def of(self, gap: Gap) -> Tensor:
        """See `GapLoss`."""
        log_q, log_not_q = logsigmoid(self.beta * gap.difference), logsigmoid(-self.beta * gap.difference)
        return log_q.exp() * (log_q - math.log1p(-self.eps)) + log_not_q.exp() * (log_not_q - math.log(self.eps))
