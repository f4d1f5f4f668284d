"""PPO under constraints; PPO is this with nothing to obey, PPO-Lag with one cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from safe_align import distributed
from safe_align.algorithms.advantages import gae, lagrangian
from safe_align.algorithms.experience import Experience, Pretraining, RunningSums
from safe_align.algorithms.multiplier import Multiplier
from safe_align.algorithms.policy_step import (
    held_out_scores,
    observe,
    policy_loss,
    ptx_loss,
    rows_of,
    split,
    with_ptx,
)
from safe_align.algorithms.rollouts import Rollouts, Sampled, length_metrics, of_everyone
from safe_align.algorithms.surrogates import clipped_value_loss, token_rewards
from safe_align.datasets.packing import Batches, Packed
from safe_align.engine import Engine
from safe_align.loop import Loss, Round, Sum
from safe_align.models.scorer import Conversation, Scorer


@dataclass(frozen=True)
class Signal:
    """What is maximised or kept low: a scorer, its critic, and the sign of the KL term in it (-1, +1 or 0)."""

    name: str
    scorer: Scorer
    critic: Engine
    kl_sign: int

    def scores(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """A score each, under the signal's name, and what else it is made of: (N,)."""
        return {self.name: self.scorer(conversations)}

    def values(self, batch: Packed) -> Tensor:
        """The critic's value before each response token: (R,)."""
        return self.critic(batch.tokens, batch.positions, batch.layout, batch.response - 1)


@dataclass(frozen=True)
class ShapedReward(Signal):
    """A reward less a fixed price times the cost; one critic values both."""

    cost: Scorer
    price: float

    def scores(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """See `Signal`."""
        reward, cost = self.scorer(conversations), self.cost(conversations)
        return {self.name: reward - self.price * cost, 'reward': reward, 'cost': cost}


@dataclass(frozen=True)
class PPOOptions:
    """The flags of the same names."""

    kl_coeff: float
    clip_range_ratio: float
    clip_range_score: float
    clip_range_value: float
    ptx_coeff: float
    gamma: float
    gae_lambda: float
    update_iters: int
    batch_size: int
    micro_batch_tokens: int
    normalize_advantages: bool = True


class ActorCritic:
    """A policy, a reference, a reward signal, cost signals with their multipliers, and their critics.

    Args:
        policy: trained.
        reference: frozen.
        reward: maximised.
        constraints: cost signals, each with its multiplier.
        rollouts: draws responses of the policy.
        options: see there.
        ptx: steps over supervised data for the PTX term.
        held_out: draws responses to held-out prompts.
    """

    def __init__(
        self, policy: Engine, reference: Engine, reward: Signal, constraints: Sequence[tuple[Signal, Multiplier]],
        rollouts: Rollouts, options: PPOOptions, ptx: Batches | None = None, held_out: Rollouts | None = None,
    ) -> None:  # fmt: skip
        self.policy, self.reference, self.reward, self.constraints = policy, reference, reward, list(constraints)
        self.rollouts, self.options, self.ptx, self.held_out = rollouts, options, ptx, held_out
        self.signals = [reward, *(signal for signal, _ in self.constraints)]
        self.engines = {'actor': policy, **{f'{signal.name}_critic': signal.critic for signal in self.signals}}
        for engine in self.engines.values():
            engine.module.eval()  # no dropout: the ratio of the first update is exactly 1
        self.steps_per_round = 0  # set by the stage, which knows the size of a round

    def collect(self, round_number: int, batch: list[Packed]) -> Round:
        """Draw responses, score them, move the multipliers, and work out advantages, all under the policy as it is.

        Advantages are centred over the tokens of the round: what critics miss of the mean return says nothing of which
        token was good, and would be laid on all of them. They are not scaled, so that lambda stays a price.
        """
        sampled = self.rollouts.sample(rows_of(batch), round_number)
        scores = self._scores([one.conversation for one in sampled])
        for signal, multiplier in self.constraints:
            multiplier.update(of_everyone(sampled, scores[signal.name]))
        options, sums = self.options, RunningSums(self.policy.device)
        steps = [
            [self._experience(packed, [sampled[n] for n in run], _some(scores, run), sums) for run, packed in step]
            for step in split(sampled, options.batch_size, options.micro_batch_tokens, self.policy)
        ]
        means = sums.means()
        offset = means.pop('train/offset')
        steps = [[replace(micro, advantages=micro.advantages - offset) for micro in step] for step in steps]
        metrics = {**self._score_metrics(scores), **self._explained(means), **length_metrics(sampled)}
        tokens = sum(micro.batch.num_tokens for step in steps for micro in step) * distributed.world_size() / len(steps)
        first = round_number * self.steps_per_round
        return Round(with_ptx(steps * options.update_iters, self.ptx, first, self.policy), metrics, tokens)

    @torch.no_grad()
    def _experience(
        self, batch: Packed, sampled: Sequence[Sampled], scores: dict[str, Tensor], sums: RunningSums
    ) -> Experience:
        temperature = self.rollouts.sampling.temperature
        log_probs, log_ratio = observe(self.policy, self.reference, batch, sampled, temperature, sums)
        weights = batch.weights[batch.segments]
        values, returns, advantages = {}, {}, {}
        for signal in self.signals:
            rewards = token_rewards(
                scores[signal.name], log_ratio, batch.segments,
                kl_coeff=self.options.kl_coeff, clip=self.options.clip_range_score, sign=signal.kl_sign,
            )  # fmt: skip
            values[signal.name] = signal.values(batch)
            advantages[signal.name], returns[signal.name] = gae(
                rewards, values[signal.name], batch.segments, gamma=self.options.gamma, lam=self.options.gae_lambda
            )
            for name, one in (('advantage', advantages), ('return', returns), ('value', values)):
                sums.add(f'{signal.name}_{name}', one[signal.name] * weights, weights.sum())
            for name, one in (('advantage', advantages), ('return', returns)):
                sums.add(f'{signal.name}_{name}_square', one[signal.name].square() * weights, weights.sum())
        combined = lagrangian(
            advantages[self.reward.name],
            [advantages[signal.name] for signal, _ in self.constraints],
            [multiplier.value for _, multiplier in self.constraints],
            self.options.normalize_advantages,
        )
        sums.add('offset', combined * weights, weights.sum())
        return Experience(batch, log_probs, combined, values, returns)

    def update(self, micro: Experience | Pretraining) -> Iterator[tuple[list[Loss], dict[str, Sum]]]:
        """The clipped surrogate, then the loss of each critic; or the PTX term."""
        if isinstance(micro, Pretraining):
            yield ptx_loss(self.policy, micro, self.options.ptx_coeff)
            return
        options, temperature = self.options, self.rollouts.sampling.temperature
        yield policy_loss(self.policy, micro, options.clip_range_ratio, temperature, 'tokens')
        weights = micro.batch.weights[micro.batch.segments]
        for signal in self.signals:
            old, returns = micro.values[signal.name], micro.returns[signal.name]
            losses = clipped_value_loss(signal.values(micro.batch), old, returns, options.clip_range_value)
            total = (losses * weights).sum()
            yield [Loss(signal.critic, total, 'tokens')], {f'{signal.name}_critic_loss': Sum(total, 'tokens')}

    def evaluate(self, batch: list[Packed]) -> Iterator[tuple[Packed, dict[str, Sum]]]:
        """Scores of responses to held-out prompts, drawn with the same random numbers each time."""
        assert self.held_out is not None
        for micro in batch:
            yield micro, held_out_scores(micro, self.held_out, self._scores)

    def _explained(self, means: dict[str, float]) -> dict[str, float]:
        """Means, and in place of squares the share of the returns' variance that each critic explains.

        1 is a critic that knows, 0 one that says the mean; below 0 it adds noise to every advantage.
        """
        for signal in self.signals:
            left, whole = (
                means.pop(f'train/{signal.name}_{name}_square') - means[f'train/{signal.name}_{name}'] ** 2
                for name in ('advantage', 'return')
            )
            means[f'train/{signal.name}_explained_variance'] = 1 - left / max(whole, 1e-8)
        return means

    def _scores(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        return {name: one for signal in self.signals for name, one in signal.scores(conversations).items()}

    def _score_metrics(self, scores: dict[str, Tensor]) -> dict[str, float]:
        sums = {name: values.sum() for name, values in scores.items()}
        unsafe = {f'{name}_unsafe': (one > 0).sum() for name, one in scores.items() if name.startswith('cost')}
        count = float(len(scores[self.reward.name]))
        totals = distributed.sum_over_ranks({**sums, **unsafe, 'count': count}, self.policy.device)
        metrics = {f'train/{name}': totals[name] / totals['count'] for name in (*sums, *unsafe)}
        for signal, multiplier in self.constraints:
            suffix = '' if len(self.constraints) == 1 else f'_{signal.name}'
            metrics[f'train/lambda{suffix}'] = multiplier.value
            metrics[f'train/episode_cost{suffix}'] = multiplier.mean_cost
        return metrics

    def state(self) -> dict[str, Any]:
        """The multipliers'."""
        return {'multipliers': [multiplier.state() for _, multiplier in self.constraints]}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        for (_, multiplier), one in zip(self.constraints, state['multipliers'], strict=True):
            multiplier.load_state(one)


def _some(scores: dict[str, Tensor], numbers: list[int]) -> dict[str, Tensor]:
    return {name: values[numbers] for name, values in scores.items()}
