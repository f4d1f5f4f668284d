"""Simple preference optimisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import BaseLoss, Gap, Losses


class SimPO(BaseLoss):
    """-log sigmoid(beta (log pi(chosen) - log pi(rejected), a token) - gamma) (arXiv:2405.14734, eq. 6)."""

    def __init__(self, beta: float = 2.0, gamma: float = 1.0) -> None:
        super().__init__(beta)
        self.gamma = gamma

    def forward(
        self,
        policy_chosen_logps: Tensor,
        policy_rejected_logps: Tensor,
        chosen_lengths: Tensor,
        rejected_lengths: Tensor,
    ) -> Losses:
        """See `BaseLoss`."""
        gap = Gap(policy_chosen_logps / chosen_lengths, policy_rejected_logps / rejected_lengths)
        return gap.returned(-logsigmoid(self.beta * gap.difference - self.gamma), self.beta)
