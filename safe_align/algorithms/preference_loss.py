"""A preference loss on packed batches: from a policy's log-probabilities to a sum and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safe_align import distributed, plugins
from safe_align.algorithms.averaging import Averaged
from safe_align.algorithms.whole_batch import OUTPUTS, at_once, learn, with_fields
from safe_align.config import UserError
from safe_align.datasets.packing import Packed
from safe_align.engine import Engine
from safe_align.loop import Sum
from safe_align.losses import Needs
from safe_align.models.policy import read_responses, response_log_probs
from safe_align.online.reweighters import Reweighter
from safe_align.tensors import segment_mean, segment_sum

PLACES = {  # of what a reweighter reads of each answer: its name in a loss, with the side
    'policy_logps': 'policy_{}logps', 'reference_logps': 'reference_{}logps', 'sampled_logps': 'sampled_{}logps',
    'lengths': '{}lengths', 'log_collisions': '{}log_collisions',
}  # fmt: skip


def answer_log_probs(engine: Engine, batch: Packed) -> Tensor:
    """Log-probabilities of whole responses, (N,), in float64: of hundreds of nats, a loss reads thousandths."""
    return segment_sum(response_log_probs(engine, batch).double(), batch.segments, batch.num_sequences)


def log_ratios(engine: Engine, batch: Packed, sides: Sequence[str]) -> Tensor:
    """Log-probabilities of responses less the reference's: (B, sides)."""
    reference = torch.stack([batch.fields[f'reference_{side}logps'] for side in sides], 1)
    return answer_log_probs(engine, batch).view(-1, len(sides)) - reference


@dataclass(frozen=True)
class PreferenceLoss:
    """The loss `name`, given what it names; each row's is multiplied by its weight under `reweighter`.

    Raises:
        UserError: when called: the loss returned what is no loss of these rows.
    """

    name: str
    loss: Any
    needs: Needs
    nll_coeff: float = 0.0
    reweighter: Reweighter | None = None
    dropout = False  # it would be noise in a ratio of two models

    @property
    def reference(self) -> bool:
        """Whether a reference model is needed."""
        return self.needs.reference or self.weighs_by('reference_logps')

    def weighs_by(self, name: str) -> bool:
        """Whether rows have weights that are made of this."""
        return self.reweighter is not None and name in self.reweighter.reads

    def whole(self, engine: Engine, batch: list[Packed], averaged: Averaged | None = None) -> list[Packed]:
        """The micro-batches of a step, with what the loss reads of all of it on their rows."""
        if isinstance(self.loss, torch.nn.Module):
            self.loss.train(torch.is_grad_enabled())  # what it keeps of its rows is of those that are learnt from
        batch = [micro.to(engine.device) for micro in batch]
        with torch.no_grad():
            if 'kl' in self.needs.names:
                batch = self._with_kl(engine, batch)
            if 'weak_gap' in self.needs.names:
                batch = [self._with_gap(averaged or engine, micro) for micro in batch]
            if self.needs.whole_batch:
                names = (*self.needs.names, *(('reweight',) if self.reweighter else ()))
                batch = at_once(self._losses, batch, [self._inputs(engine, micro) for micro in batch], names)
        return batch

    def _with_gap(self, engine: Engine, micro: Packed) -> Packed:
        """The gap between the answers of the weaker pair."""
        chosen, rejected = log_ratios(engine, _beside(micro), self.needs.sides).unbind(1)
        return with_fields(micro, {'weak_gap': chosen - rejected})

    def _with_kl(self, engine: Engine, batch: list[Packed]) -> list[Packed]:
        """The mean log-ratio of answers to other prompts, over the step on all processes, at least 0."""
        sums: dict[str, Any] = {'ratios': 0.0, 'weights': 0.0}
        for micro in batch:
            weight = micro.fields['weight'].double()
            sums['ratios'] += (log_ratios(engine, _beside(micro), ('',))[:, 0] * weight).sum()
            sums['weights'] += weight.sum()
        totals = distributed.sum_over_ranks(sums, engine.device)
        kl = max(totals['ratios'] / max(totals['weights'], 1e-12), 0.0)
        return [
            with_fields(micro, {'kl': torch.full_like(micro.fields['weight'], kl, dtype=torch.float64)})
            for micro in batch
        ]

    def __call__(self, engine: Engine, batch: Packed) -> tuple[Tensor, str, dict[str, Sum]]:
        """The loss summed over rows, and its measures."""
        inputs = self._inputs(engine, batch)
        weight = batch.fields['weight']
        if self.needs.whole_batch:
            losses, *rewards = (batch.fields[name] for name in OUTPUTS)
            total = (losses * weight).sum() + learn(batch, inputs)
        else:
            losses, *rewards = self._losses(inputs)
            total = (losses * weight).sum()
        if self.nll_coeff:
            side = self.needs.sides[0]
            likelihood = inputs[f'policy_{side}logps'] / inputs[f'{side}lengths'] * inputs.get('labels', 1.0)
            total = total - self.nll_coeff * (likelihood * weight).sum()
        return total, 'rows', measures(self.needs, inputs, *rewards)

    def state(self) -> dict[str, Any]:
        """What the loss keeps of the steps so far."""
        own = self.loss.state_dict() if isinstance(self.loss, torch.nn.Module) else {}
        return {name: value.tolist() for name, value in own.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        own = self.loss.state_dict() if isinstance(self.loss, torch.nn.Module) else {}
        for name, value in own.items():
            value.copy_(torch.tensor(state[name], dtype=value.dtype))

    def _inputs(self, engine: Engine, batch: Packed) -> dict[str, Tensor]:
        sides, of_answers = self.needs.sides, {}
        collisions = self.weighs_by('log_collisions')
        of_tokens = read_responses(engine, batch, values='values' in self.needs.names, collisions=collisions)
        grouped = (batch.segments, batch.num_sequences)
        of_answers['policy_logps'] = segment_sum(of_tokens['policy_token_logps'].double(), *grouped)
        of_answers['lengths'] = torch.bincount(batch.segments, minlength=batch.num_sequences)
        if collisions:
            of_answers['log_collisions'] = segment_mean(of_tokens['token_log_collisions'].double(), *grouped)
        inputs = {**batch.fields, 'segments': batch.segments, **batch.token_fields, **of_tokens}
        for name, values in of_answers.items():
            columns = values.view(-1, len(sides)).unbind(1)
            inputs |= {PLACES[name].format(side): column for side, column in zip(sides, columns, strict=True)}
        return inputs if self.reweighter is None else {**inputs, 'reweight': self._reweights(self.reweighter, inputs)}

    def _reweights(self, reweighter: Reweighter, inputs: Mapping[str, Tensor]) -> Tensor:
        """The weights of rows, (B,), besides those that the data gives them."""
        given = {
            name: torch.stack([inputs[place.format(side)] for side in self.needs.sides], 1)
            for name, place in PLACES.items()
            if name in reweighter.reads
        }
        return reweighter({**inputs, **given}, len(inputs['weight']))

    def _losses(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row, (B,), reweighted, with the rewards of chosen and of rejected answers."""
        returned, weight = self._call(inputs), inputs['weight']
        reweight = inputs.get('reweight')
        if not (
            isinstance(returned, tuple) and len(returned) == 3 and all(isinstance(one, Tensor) for one in returned)
        ):
            raise UserError(f'--loss {self.name}: returned no losses, chosen rewards and rejected rewards')
        losses, chosen, rejected = returned
        if losses.ndim == 0:
            weights = weight if reweight is None else weight * reweight
            if bool((weights != weights[0]).any()):
                raise UserError(
                    f'--loss {self.name}: returns a mean, and rows have weights; return the loss of each row'
                )
            losses = losses.expand(len(weight))
        if plugins.named('safe_align.losses', self.name) and not bool(losses.isfinite().all()):
            raise UserError(f'--loss {self.name}: a loss is not finite')
        for what, one in (('losses', losses), ('chosen rewards', chosen), ('rejected rewards', rejected)):
            if one.shape != weight.shape:
                raise UserError(f'--loss {self.name}: {what} of shape {tuple(one.shape)} for {len(weight)} rows')
        return losses if reweight is None else losses * reweight, chosen, rejected

    def _call(self, inputs: Mapping[str, Tensor]) -> Any:
        """What the loss returns; one of the user's own may fail."""
        try:
            return self.loss(**{name: inputs[name] for name in self.needs.names})
        except Exception as error:
            if plugins.named('safe_align.losses', self.name) is None:
                raise
            raise UserError(f'--loss {self.name}: {type(error).__name__}: {error}') from error


def _beside(micro: Packed) -> Packed:
    assert micro.beside is not None
    return micro.beside


def measures(needs: Needs, inputs: Mapping[str, Tensor], chosen: Tensor, rejected: Tensor) -> dict[str, Sum]:
    """What tells learning from displacement: rewards, and each side's log-probability, length and log-ratio."""
    weight, found = inputs['weight'], dict[str, Sum]()

    def mean(values: Tensor, per: str = 'rows', of: Tensor = weight) -> Sum:
        return Sum((values * of).sum(), per)

    if 'reweight' in inputs:
        found['reweight'] = mean(inputs['reweight'])
    if needs.rows == 'answers':
        kinds = {'desirable': weight * inputs['labels'], 'undesirable': weight * (1 - inputs['labels'])}
        for (kind, of), rewards in zip(kinds.items(), (chosen, rejected), strict=True):
            found |= {f'reward_{kind}': mean(rewards, kind, of)}
            found |= {f'{name}_{kind}': mean(values, kind, of) for name, values in _of_side(inputs, '').items()}
        return found | ({'kl': mean(inputs['kl'])} if 'kl' in inputs else {})
    found |= {'reward_chosen': mean(chosen)}
    if needs.rows == 'pairs':
        right = (chosen > rejected).float() + (chosen == rejected).float() / 2
        found |= {'reward_rejected': mean(rejected), 'margin': mean(chosen - rejected), 'accuracy': mean(right)}
    for side in needs.sides:
        found |= {f'{name}_{side[:-1]}': mean(values) for name, values in _of_side(inputs, side).items()}
    return found


def _of_side(inputs: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    logps, reference = inputs[f'policy_{side}logps'].detach(), inputs.get(f'reference_{side}logps')
    ratio = {} if reference is None else {'log_ratio': logps - reference}
    return {'log_prob': logps, 'length': inputs[f'{side}lengths'].float(), **ratio}
