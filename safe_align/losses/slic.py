"""Sequence likelihood calibration."""

from __future__ import annotations

from torch import Tensor

from safe_align.losses._base import BaseLoss, Gap, Losses


class SLiC(BaseLoss):
    """max(0, delta - log pi(chosen) + log pi(rejected)) - lam log pi(chosen) (Zhao et al. 2023, arXiv:2305.10425)."""

    def __init__(self, delta: float = 1.0, lam: float = 0.1, length_normalize: bool = False) -> None:
        super().__init__()
        self.delta = delta
        self.lam = lam
        self.length_normalize = length_normalize

    def forward(
        self,
        policy_chosen_logps: Tensor,
        policy_rejected_logps: Tensor,
        chosen_lengths: Tensor,
        rejected_lengths: Tensor,
    ) -> Losses:
        """See `BaseLoss`."""
        chosen, rejected = policy_chosen_logps, policy_rejected_logps
        if self.length_normalize:
            chosen, rejected = chosen / chosen_lengths, rejected / rejected_lengths
        gap = Gap(chosen, rejected)
        return gap.returned((self.delta - gap.difference).clamp(min=0) - self.lam * chosen, 1.0)
