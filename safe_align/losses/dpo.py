"""Direct preference optimisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import Gap, TokenGapLoss


class DPO(TokenGapLoss):
    """-log sigmoid(beta D) (Rafailov et al. 2023, arXiv:2305.18290, eq. 7)."""

    def of(self, gap: Gap) -> Tensor:
        """See `TokenGapLoss`."""
        return -logsigmoid(self.beta * gap.difference)
