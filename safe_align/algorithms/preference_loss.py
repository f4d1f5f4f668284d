"""A preference loss on packed batches: from a policy's log-probabilities to a sum and measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safe_align import plugins
from safe_align.config import UserError
from safe_align.datasets.packing import Packed
from safe_align.engine import Engine
from safe_align.loop import Sum
from safe_align.losses import Needs
from safe_align.models.policy import response_log_probs
from safe_align.tensors import segment_sum

SIDES = ('chosen', 'rejected')


def answer_log_probs(engine: Engine, batch: Packed) -> Tensor:
    """Log-probabilities of whole responses, (N,), in float64: of hundreds of nats, a loss reads thousandths."""
    return segment_sum(response_log_probs(engine, batch).double(), batch.segments, batch.num_sequences)


@dataclass(frozen=True)
class PreferenceLoss:
    """The loss `name`, given what it names.

    Raises:
        UserError: when called: the loss returned what is no loss of these rows.
    """

    name: str
    loss: Any
    needs: Needs
    nll_coeff: float = 0.0
    dropout = False  # it would be noise in a ratio of two models

    def __call__(self, engine: Engine, batch: Packed) -> tuple[Tensor, str, dict[str, Sum]]:
        """The loss summed over rows, and its measures."""
        inputs = self._inputs(engine, batch)
        weight = batch.fields['weight']
        losses, *rewards = self._checked(self.loss(**{name: inputs[name] for name in self.needs.names}), weight)
        if self.nll_coeff:
            losses = losses - self.nll_coeff * inputs['policy_chosen_logps'] / inputs['chosen_lengths']
        measures = {**self._rewards(*rewards), **_log_probs(inputs)}
        return (losses * weight).sum(), 'rows', {name: Sum((v * weight).sum(), 'rows') for name, v in measures.items()}

    def _inputs(self, engine: Engine, batch: Packed) -> dict[str, Tensor]:
        logps = answer_log_probs(engine, batch)
        lengths = torch.bincount(batch.segments, minlength=batch.num_sequences)
        sides = SIDES[: batch.num_sequences // len(batch.fields['weight'])]
        of_sides = {
            f'policy_{side}_logps': values
            for side, values in zip(sides, logps.view(-1, len(sides)).unbind(1), strict=True)
        } | {
            f'{side}_lengths': values
            for side, values in zip(sides, lengths.view(-1, len(sides)).unbind(1), strict=True)
        }
        return {**batch.fields, **of_sides}

    def _checked(self, returned: Any, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not (
            isinstance(returned, tuple) and len(returned) == 3 and all(isinstance(one, Tensor) for one in returned)
        ):
            raise UserError(f'--loss {self.name}: returned no losses, chosen rewards and rejected rewards')
        losses, chosen, rejected = returned
        if losses.ndim == 0:
            if bool((weight != weight[0]).any()):
                raise UserError(
                    f'--loss {self.name}: returns a mean, and rows have weights; return the loss of each row'
                )
            losses = losses.expand(len(weight))
        if plugins.named('safe_align.losses', self.name) and not bool(losses.isfinite().all()):
            raise UserError(f'--loss {self.name}: a loss is not finite')
        for what, one in (('losses', losses), ('chosen rewards', chosen), ('rejected rewards', rejected)):
            if one.shape != weight.shape:
                raise UserError(f'--loss {self.name}: {what} of shape {tuple(one.shape)} for {len(weight)} rows')
        return losses, chosen, rejected

    def _rewards(self, chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
        if self.needs.rows == 'chosen':
            return {'reward_chosen': chosen}
        right = (chosen > rejected).float() + (chosen == rejected).float() / 2
        return {'reward_chosen': chosen, 'reward_rejected': rejected, 'margin': chosen - rejected, 'accuracy': right}


def _log_probs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What tells learning from displacement: each side's log-probability, length, and log-ratio to the reference."""
    measures = {}
    for side in SIDES:
        if f'policy_{side}_logps' not in inputs:
            continue
        logps = inputs[f'policy_{side}_logps'].detach()
        measures[f'log_prob_{side}'] = logps
        measures[f'length_{side}'] = inputs[f'{side}_lengths'].float()
        if f'reference_{side}_logps' in inputs:
            measures[f'log_ratio_{side}'] = logps - inputs[f'reference_{side}_logps']
    return measures
