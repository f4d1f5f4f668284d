"""REINFORCE under confidence bounds: no critics, advantages of whole responses, costs taken at an upper bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safe_align import distributed
from safe_align.algorithms.experience import Experience, Pretraining, RunningSums
from safe_align.algorithms.group_advantages import global_mean, pessimistic_cost, pessimistic_rloo, rloo
from safe_align.algorithms.multiplier import Multiplier
from safe_align.algorithms.pessimism import FLOOR, Estimate, Pessimism
from safe_align.algorithms.policy_step import (
    held_out_scores,
    observe,
    policy_loss,
    ptx_loss,
    rows_of,
    split,
    with_ptx,
)
from safe_align.algorithms.rl_stage import Parts
from safe_align.algorithms.rollouts import Sampled, length_metrics
from safe_align.datasets.packing import Packed
from safe_align.loop import Loss, Round, Sum
from safe_align.models.scorer import Conversation, Scorer
from safe_align.tensors import segment_sum


@dataclass(frozen=True)
class Constraint:
    """A cost, the bound on it, and its multiplier."""

    name: str
    scorer: Scorer
    pessimism: Pessimism
    multiplier: Multiplier


@dataclass(frozen=True)
class ReinforceOptions:
    """The flags of the same names."""

    kl_coeff: float
    clip_range_ratio: float
    clip_range_score: float
    ptx_coeff: float
    update_iters: int
    batch_size: int
    micro_batch_tokens: int
    num_samples_per_prompt: int
    advantage: str
    normalize: bool


class Reinforce:
    """A policy, a reference, a reward, and constraints on costs; the divergence is in the reward alone.

    Args:
        parts: of any stage.
        reward: maximised.
        constraints: kept.
        options: see there.
    """

    def __init__(
        self, parts: Parts, reward: Scorer, constraints: Sequence[Constraint], options: ReinforceOptions
    ) -> None:
        self.policy, self.reference, self.rollouts = parts.policy, parts.reference, parts.rollouts
        self.held_out, self.ptx = parts.held_out, parts.ptx
        self.reward, self.constraints, self.options = reward, list(constraints), options
        self.engines = {'actor': self.policy}
        self.policy.module.eval()  # no dropout: the ratio of the first update is exactly 1
        self.steps_per_round = 0  # set by the stage, which knows the size of a round
        self.history = np.zeros(2)  # sum and number of the returns of the rounds before, for the running mean

    def collect(self, round_number: int, batch: list[Packed]) -> Round:
        """Draw responses, score them, move the multipliers, compare the responses, all under the policy as it is."""
        options, sums = self.options, RunningSums(self.policy.device)
        sampled = self.rollouts.sample(rows_of(batch), round_number)
        scores = self._scores([one.conversation for one in sampled])
        steps = split(sampled, options.batch_size, options.micro_batch_tokens, self.policy)
        seen = [[self._observe(packed, [sampled[n] for n in run], sums) for run, packed in step] for step in steps]
        divergences = seen[0][0][1].new_zeros(len(sampled))
        for step, found in zip(steps, seen, strict=True):
            for (run, _), (_, divergence) in zip(step, found, strict=True):
                divergences[run] = divergence
        estimates = self._move(scores)
        advantages, returns = self._advantages(scores, divergences, estimates)
        made = [
            [Experience(packed, old, advantages[run][packed.segments], {}, {})
             for (run, packed), (old, _) in zip(step, found, strict=True)]
            for step, found in zip(steps, seen, strict=True)
        ]  # fmt: skip
        metrics = {**self._metrics(scores, returns, estimates), **sums.means(), **length_metrics(sampled)}
        tokens = sum(packed.num_tokens for step in steps for _, packed in step) * distributed.world_size() / len(steps)
        first = round_number * self.steps_per_round
        return Round(with_ptx(made * options.update_iters, self.ptx, first, self.policy), metrics, tokens)

    def _observe(self, batch: Packed, sampled: Sequence[Sampled], sums: RunningSums) -> tuple[Tensor, Tensor]:
        """Log-probabilities of tokens, (R,), and the divergence of each response, (N,)."""
        temperature = self.rollouts.sampling.temperature
        log_probs, log_ratio = observe(self.policy, self.reference, batch, sampled, temperature, sums)
        return log_probs, segment_sum(log_ratio, batch.segments, batch.num_sequences)

    def _move(self, scores: dict[str, Tensor]) -> list[Estimate]:
        """The bound of each constraint, from this round's prompts on all processes, and its multiplier's move."""
        estimates = []
        for constraint in self.constraints:
            per_prompt = self._grouped(scores[constraint.name]).mean(1)
            estimate = constraint.pessimism(distributed.gather_over_ranks(per_prompt.tolist()))
            constraint.multiplier.move(estimate.bound - constraint.multiplier.threshold, estimate.std**2)
            estimates.append(estimate)
        return estimates

    def _grouped(self, values: Tensor) -> Tensor:
        return values.view(-1, self.options.num_samples_per_prompt)

    def _advantages(
        self, scores: dict[str, Tensor], divergences: Tensor, estimates: Sequence[Estimate]
    ) -> tuple[Tensor, Tensor]:
        """(N,) each: R - kl_coeff KL - sum lambda c~ less its baseline, and that return itself.

        With --lambda_normalize one_plus_lambda all but the divergence is divided by 1 + sum lambda.
        """
        options, clip = self.options, self.options.clip_range_score
        values = [one.multiplier.value for one in self.constraints]
        scale = 1 / (1 + sum(values)) if options.normalize else 1.0
        penalty = options.kl_coeff * divergences
        reward = (scale * scores['reward'] - penalty).clamp(-clip, clip)
        costs = [self._grouped(scores[one.name]) for one in self.constraints]
        priced = list(zip(values, costs, estimates, strict=True))
        returns = reward - sum(
            (scale * v * _cost(pessimistic_cost, c, e).flatten() for v, c, e in priced), torch.zeros_like(reward)
        )
        if options.advantage == 'running_mean':
            return self._less_history(returns), returns
        if options.advantage == 'reinforce_plus_plus':
            return global_mean(returns, float(np.mean(distributed.gather_over_ranks(returns.tolist())))), returns
        gain = rloo(self._grouped(reward)).flatten()
        for v, c, e in priced:
            gain = gain - scale * v * _cost(pessimistic_rloo, c, e).flatten()
        # What the group's mean takes off is (K - 1) / K of it, and so it is here: the mean of the costs at their bound
        # would hold each response's share of the others' squares too, which is no baseline.
        return (gain if options.advantage == 'rloo' else gain * (1 - 1 / options.num_samples_per_prompt)), returns

    def _less_history(self, returns: Tensor) -> Tensor:
        """Less the mean of all rounds before, of all processes; in the first, of the other prompts of the round.

        The other responses to its own prompt would not do: at their bound, costs of one prompt depend on each other.
        """
        everyone = np.array(distributed.gather_over_ranks(returns.tolist()))
        total, count = self.history
        self.history += np.array([everyone.sum(), len(everyone)])
        if count:
            return returns - float(total / count)
        grouped = self._grouped(returns)
        others = float(everyone.sum()) - grouped.sum(1, keepdim=True)
        return (grouped - others / max(len(everyone) - grouped.shape[1], 1)).flatten()

    def update(self, micro: Experience | Pretraining) -> Iterator[tuple[list[Loss], dict[str, Sum]]]:
        """The surrogate, whose gradient is REINFORCE's while the policy has not moved, or the PTX term."""
        if isinstance(micro, Pretraining):
            yield ptx_loss(self.policy, micro, self.options.ptx_coeff)
            return
        if self.options.advantage == 'grpo':
            lengths = torch.bincount(micro.batch.segments, minlength=micro.batch.num_sequences).clamp(min=1)
            micro = replace(micro, advantages=micro.advantages / lengths[micro.batch.segments])
        temperature = self.rollouts.sampling.temperature
        yield policy_loss(self.policy, micro, self.options.clip_range_ratio, temperature, 'rows')

    def evaluate(self, batch: list[Packed]) -> Iterator[tuple[Packed, dict[str, Sum]]]:
        """Scores of responses to held-out prompts, and the share that keeps the threshold."""
        assert self.held_out is not None
        for micro in batch:
            yield micro, held_out_scores(micro, self.held_out, self._scores)

    def _scores(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        return {
            'reward': self.reward(conversations),
            **{one.name: one.scorer(conversations) for one in self.constraints},
        }

    def _metrics(self, scores: dict[str, Tensor], returns: Tensor, estimates: Sequence[Estimate]) -> dict[str, float]:
        sums: dict[str, Any] = {'reward': scores['reward'].sum(), 'return': returns.sum()}
        for one in self.constraints:
            costs = scores[one.name]
            sums |= {
                one.name: costs.sum(), f'{one.name}_unsafe': (costs > 0).sum(),
                f'{one.name}_success': (costs <= one.multiplier.threshold).sum(),
            }  # fmt: skip
        totals = distributed.sum_over_ranks({**sums, 'count': float(len(returns))}, self.policy.device)
        metrics = {f'train/{name}': totals[name] / totals['count'] for name in sums}
        for one, estimate in zip(self.constraints, estimates, strict=True):
            suffix = one.name.removeprefix('cost')
            metrics |= {
                f'train/lambda{suffix}': one.multiplier.value, f'train/mean_cost_estimate{suffix}': estimate.mean,
                f'train/stdev_cost_estimate{suffix}': estimate.std, f'train/kappa{suffix}': estimate.kappa,
                f'train/cost_bound{suffix}': estimate.bound,
            }  # fmt: skip
        return metrics

    def state(self) -> dict[str, Any]:
        """The multipliers' and the running mean's."""
        return {'multipliers': [one.multiplier.state() for one in self.constraints], 'history': self.history.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        self.history = np.array(state['history'])
        for one, found in zip(self.constraints, state['multipliers'], strict=True):
            one.multiplier.load_state(found)


def _cost(function: Any, costs: Tensor, estimate: Estimate) -> Tensor:
    """Costs at their bound; where all are equal, as they are."""
    kappa = estimate.kappa if estimate.std > FLOOR else 0.0
    return function(costs, kappa, estimate.mean, max(estimate.std, FLOOR))
