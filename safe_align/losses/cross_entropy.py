"""Cross entropy of chosen answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import BaseLoss, Losses


class CrossEntropy(BaseLoss):
    """-log sigmoid(beta u_w): the chosen answer alone, against the reference (arXiv:2409.19605)."""

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__(beta)

    def forward(self, policy_chosen_logps: Tensor, reference_chosen_logps: Tensor) -> Losses:
        """See `BaseLoss`."""
        rewards = self.beta * (policy_chosen_logps - reference_chosen_logps)
        return -logsigmoid(rewards), rewards.detach(), torch.zeros_like(rewards)
