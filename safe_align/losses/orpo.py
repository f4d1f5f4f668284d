"""Odds ratio preference optimisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import BaseLoss, Gap, Losses, log_one_minus_exp


class ORPO(BaseLoss):
    """-log pi(chosen) a token - lam log sigmoid(log odds ratio) (Hong et al. 2024, arXiv:2403.07691, eq. 6)."""

    def __init__(self, lam: float = 0.1) -> None:
        super().__init__()
        self.lam = lam

    def forward(
        self,
        policy_chosen_logps: Tensor,
        policy_rejected_logps: Tensor,
        chosen_lengths: Tensor,
        rejected_lengths: Tensor,
    ) -> Losses:
        """See `BaseLoss`."""
        gap = Gap(policy_chosen_logps / chosen_lengths, policy_rejected_logps / rejected_lengths)
        log_odds = gap.difference - (log_one_minus_exp(gap.chosen) - log_one_minus_exp(gap.rejected))
        return gap.returned(-gap.chosen - self.lam * logsigmoid(log_odds), self.lam)
