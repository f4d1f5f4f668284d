"""Reward-ranked fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from safe_align.losses._base import BaseLoss, Losses


class RAFT(BaseLoss):
    """-log pi(chosen): supervised learning of chosen answers (Dong et al. 2023, arXiv:2304.06767)."""

    def __init__(self, length_normalize: bool = False) -> None:
        super().__init__()
        self.length_normalize = length_normalize

    def forward(self, policy_chosen_logps: Tensor, chosen_lengths: Tensor) -> Losses:
        """See `BaseLoss`."""
        logps = policy_chosen_logps / chosen_lengths if self.length_normalize else policy_chosen_logps
        return -logps, logps.detach(), torch.zeros_like(logps)
