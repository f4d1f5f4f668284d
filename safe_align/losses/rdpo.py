"""Robust DPO, for labels that may be flipped."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, GapLoss


class RDPO(GapLoss):
    """DPO without the bias of labels that are flipped with rate e = label_smoothing (arXiv:2403.00409, eq. 12).

    Unbounded below: a pair's loss falls for ever as its gap grows.
    """

    def __init__(self, beta: float = 0.1, label_smoothing: float = 0.1) -> None:
        super().__init__(beta)
        self.label_smoothing = label_smoothing

    def of(self, gap: Gap) -> Tensor:
        """See `GapLoss`."""
        logits, e = self.beta * gap.difference, self.label_smoothing
        return (-(1 - e) * logsigmoid(logits) + e * logsigmoid(-logits)) / (1 - 2 * e)
