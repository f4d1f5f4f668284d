"""Rounds of the real algorithms, from their flags to a gradient, in which every answer of EnumLM takes part.

A round holds all groups of answers once, and the probability of each is its weight, so a sum over the round is an
expectation. Rollouts, score models and critics are tables; all that lies between them is what the stages run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from safe_align.algorithms import actor_critic, ppo, ppo_lag, ppo_reward_shaping, ppo_stage, reinforce, rl_stage
from safe_align.algorithms.reinforce_ci_lag import ReinforceConfig
from safe_align.algorithms.rl_stage import Parts, Workshop
from safe_align.algorithms.rollouts import Sampled
from safe_align.engine import OptimizerOptions, Placement
from safe_align.loop import take_step
from safe_align.models.scorer import Conversation
from safe_align.sampling import Response
from safe_align.testbeds.enum_lm import EnumCritic, EnumLM

CONFIGS = {
    'ppo': ppo.PPOConfig, 'ppo_lag': ppo_lag.PPOLagConfig,
    'ppo_reward_shaping': ppo_reward_shaping.RewardShapingConfig, 'reinforce_ci_lag': ReinforceConfig,
}  # fmt: skip
OPTIONS = {
    'output_dir': 'none', 'train_datasets': ['jsonl:1:none'], 'actor_model_name_or_path': 'policy',
    'reward_model_name_or_path': 'reward', 'bf16': False, 'kl_coeff': 0.3, 'micro_batch_tokens': 5000,
    'per_device_train_batch_size': 10**6,
}  # fmt: skip
COSTS = {'ppo_lag': ['cost'], 'reinforce_ci_lag': ['cost'], 'ppo_reward_shaping': 'cost'}
STILL = OptimizerOptions(0.0, 0.0, 'constant', 0.0, 0.0, 1)


@dataclass
class Listing:
    """In place of rollouts: groups of answers to a prompt, and how likely each is."""

    world: EnumLM
    prompts: Tensor  # (G,)
    answers: Tensor  # (G, K)
    weights: Tensor  # (G,)
    sampling: SimpleNamespace  # the temperature

    @classmethod
    def of(cls, world: EnumLM, num_responses: int = 1, temperature: float = 1.0) -> Listing:
        """Every prompt with every `num_responses` answers."""
        log_probs = world.policy.log_probs(temperature).detach()
        num_prompts, num_answers = log_probs.shape
        groups = torch.cartesian_prod(*[torch.arange(num_answers)] * num_responses).view(-1, num_responses)
        weights = log_probs[:, groups].sum(-1).exp() / num_prompts
        prompts = torch.arange(num_prompts).repeat_interleave(len(groups))
        sampling = SimpleNamespace(temperature=temperature)
        return cls(world, prompts, groups.repeat(num_prompts, 1), weights.flatten(), sampling)

    def sample(self, rows: list[int], number: int) -> list[Sampled]:
        ids, first = self.world.answers.ids, self.world.answers.num_symbols + 1
        return [
            Sampled(
                group, Response(group, n, ids[answer], [0.0] * len(ids[answer]), True),
                Conversation([], [first + prompt], ids[answer], str(answer)),
            )
            for group, (prompt, answers) in enumerate(zip(self.prompts.tolist(), self.answers.tolist(), strict=True))
            for n, answer in enumerate(answers)
        ]  # fmt: skip

    def split(self, sampled, size, budget, engine):
        """As the algorithms split a round, each response with the probability of its group."""
        weights = self.weights.repeat_interleave(self.answers.shape[1])
        return [
            [(run, replace(packed, fields={'weight': weights[run]})) for run, packed in step]
            for step in REAL_SPLIT(sampled, size, budget, engine)
        ]


REAL_SPLIT = actor_critic.split


class Bench(Workshop):
    """A stage's workshop whose score models are tables."""

    def __init__(self, config, world: EnumLM) -> None:
        self.config, self.world = config, world

    def scorer(self, kind, number=0):
        table, first = getattr(self.world, kind), self.world.answers.num_symbols + 1
        return lambda some: table[[c.prompt[0] - first for c in some], [int(c.text) for c in some]]


def build(make_engine, monkeypatch, stage: str, listing: Listing, values: dict[str, Tensor] | None = None, **options):
    """The algorithm of a stage with these flags; `values` are the critics' tables, (X, S) each."""
    world, found = listing.world, []
    monkeypatch.setattr(rl_stage, 'run_rl', lambda config, name, algorithm_of, *_, **__: found.append(algorithm_of))
    monkeypatch.setattr(
        ppo_stage, 'critic_of',
        lambda workshop, kind, number=0: make_engine(EnumCritic(world.answers, values[kind]), Placement(), STILL),
    )  # fmt: skip
    for module in (actor_critic, reinforce):
        monkeypatch.setattr(module, 'split', listing.split)
    costs = {'cost_model_name_or_path': COSTS[stage]} if stage in COSTS else {}
    fixed = {'lambda_lr': 0.0} if stage in ('ppo_lag', 'reinforce_ci_lag') else {}
    config = CONFIGS[stage](**{**OPTIONS, 'temperature': listing.sampling.temperature, **costs, **fixed, **options})
    getattr(__import__('safe_align.algorithms', fromlist=[stage]), stage).main(config)
    policy = make_engine(world.policy, Placement(), STILL)
    return found[0](Parts(Bench(config, world), policy, make_engine(world.reference, Placement()), listing, None, None))


def collect(algorithm, number: int = 0):
    """A round of all answers."""
    return algorithm.collect(number, [SimpleNamespace(rows=[0], fields={'weight': torch.ones(1)})])


def gradient(algorithm, step) -> Tensor:
    """Of a step's loss, by the logits: (X, S, V)."""
    _, finite = take_step(algorithm, step)
    assert finite
    return algorithm.policy.gradient.view_as(algorithm.policy.module.logits)


def exact(objective, policy) -> Tensor:
    """The gradient of a number, by the logits: (X, S, V)."""
    return torch.autograd.grad(objective, policy.logits, retain_graph=True)[0]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
