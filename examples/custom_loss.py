"""A preference loss of one's own.

python -m safe_align.algorithms.preference --plugin examples/custom_loss.py --loss squared --loss_options target=3 ...
"""

from torch import Tensor

from safe_align.losses import BaseLoss, Losses


class Squared(BaseLoss):
    """(D - target)^2, D the gap of log-ratios."""

    def __init__(self, beta: float = 0.1, target: float = 5.0) -> None:
        super().__init__(beta)
        self.target = target

    def forward(
        self, policy_chosen_logps: Tensor, policy_rejected_logps: Tensor,
        reference_chosen_logps: Tensor, reference_rejected_logps: Tensor,
    ) -> Losses:  # fmt: skip
        """A loss a row, and the implicit rewards of both answers."""
        chosen, rejected = (
            policy_chosen_logps - reference_chosen_logps,
            policy_rejected_logps - reference_rejected_logps,
        )
        return (chosen - rejected - self.target) ** 2, self.beta * chosen.detach(), self.beta * rejected.detach()


LOSSES = {'squared': 'Squared'}
