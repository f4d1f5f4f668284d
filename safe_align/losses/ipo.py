"""Identity preference optimisation."""

from __future__ import annotations

from torch import Tensor

from safe_align.losses._base import Gap, TokenGapLoss


class IPO(TokenGapLoss):
    """(D - 1 / (2 beta))^2 (Azar et al. 2023, arXiv:2310.12036, eq. 17).

    By default of log-ratios a token, as its authors run it; the paper's own sums are `length_normalize=False`.
    """

    def __init__(self, beta: float = 0.1, length_normalize: bool = True) -> None:
        super().__init__(beta, length_normalize)

    def of(self, gap: Gap) -> Tensor:
        """See `TokenGapLoss`."""
        return (gap.difference - 1 / (2 * self.beta)).square()
