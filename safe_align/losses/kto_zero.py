"""Kahneman-Tversky optimisation without a KL term."""

from __future__ import annotations

from torch import Tensor

from safe_align.losses._base import BaseLoss, Losses, by_label


class KTOZero(BaseLoss):
    """1 - sigmoid(beta u) of desirable, sigmoid(beta u) of undesirable answers (arXiv:2402.01306)."""

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__(beta)

    def forward(self, policy_logps: Tensor, reference_logps: Tensor, labels: Tensor) -> Losses:
        """See `BaseLoss`."""
        rewards = self.beta * (policy_logps - reference_logps)
        return by_label((-(2 * labels - 1) * rewards).sigmoid(), rewards, labels)
