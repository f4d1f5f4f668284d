"""DPO-positive (Smaug)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, GapLoss


class DPOP(GapLoss):
    """-log sigmoid(beta (D - lam max(0, -u_w))): DPO that holds the chosen answer up (arXiv:2402.13228, eq. 3)."""

    def __init__(self, beta: float = 0.3, lam: float = 50.0) -> None:
        super().__init__(beta)
        self.lam = lam

    def of(self, gap: Gap) -> Tensor:
        """See `GapLoss`."""
        return -logsigmoid(self.beta * (gap.difference - self.lam * (-gap.chosen).clamp(min=0)))
