"""Contrastive preference optimisation."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import BaseLoss, Gap, Losses


class CPO(BaseLoss):
    """-log sigmoid(beta (log pi(chosen) - log pi(rejected))) - alpha log pi(chosen) (arXiv:2401.08417, eq. 5).

    `length_normalize`: the last term is a mean over the answer's tokens.
    """

    def __init__(self, beta: float = 0.1, alpha: float = 1.0, length_normalize: bool = False) -> None:
        super().__init__(beta)
        self.alpha = alpha
        self.length_normalize = length_normalize

    def forward(self, policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, chosen_lengths: Tensor) -> Losses:
        """See `BaseLoss`."""
        gap = Gap(policy_chosen_logps, policy_rejected_logps)
        likelihood = gap.chosen / chosen_lengths if self.length_normalize else gap.chosen
        return gap.returned(-logsigmoid(self.beta * gap.difference) - self.alpha * likelihood, self.beta)
