"""DPO of safe answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from safe_align.losses._base import BaseLoss, Gap, Losses


class SafeDPO(BaseLoss):
    """-log sigmoid(beta D - delta [one is unsafe]), the safe answer as the chosen one (arXiv:2505.20065).

    Pairs of two unsafe answers do not say what is safe, and are left out; `keep_unsafe` learns them as DPO does.
    """

    def __init__(self, beta: float = 0.1, delta: float = 10.0, keep_unsafe: bool = False) -> None:
        super().__init__(beta)
        self.delta = delta
        self.keep_unsafe = keep_unsafe

    def forward(
        self,
        policy_chosen_logps: Tensor,
        policy_rejected_logps: Tensor,
        reference_chosen_logps: Tensor,
        reference_rejected_logps: Tensor,
        is_chosen_safe: Tensor,
        is_rejected_safe: Tensor,
    ) -> Losses:
        """See `BaseLoss`."""
        gap = Gap(policy_chosen_logps - reference_chosen_logps, policy_rejected_logps - reference_rejected_logps)
        swapped = (is_chosen_safe < 0.5) & (is_rejected_safe > 0.5)
        one_is_unsafe = (is_chosen_safe > 0.5) != (is_rejected_safe > 0.5)
        both_are = (is_chosen_safe < 0.5) & (is_rejected_safe < 0.5)
        logits = self.beta * torch.where(swapped, -gap.difference, gap.difference) - self.delta * one_is_unsafe
        losses = -logsigmoid(logits)
        return gap.returned(losses if self.keep_unsafe else torch.where(both_are, 0.0, losses), self.beta)
