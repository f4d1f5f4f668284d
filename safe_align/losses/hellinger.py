"""Hellinger distance to soft labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, MarginLoss


class Hellinger(MarginLoss):
    """Half the squared distance of (sqrt p, sqrt(1 - p)) of sigmoid(beta D) to that of sigmoid(margin_scale margin)."""

    def of(self, gap: Gap, margin: Tensor) -> Tensor:
        """See `MarginLoss`."""
        logits = self.beta * gap.difference
        one, other = ((logsigmoid(sign * logits) / 2).exp() - (logsigmoid(sign * margin) / 2).exp() for sign in (1, -1))
        return (one.square() + other.square()) / 2
