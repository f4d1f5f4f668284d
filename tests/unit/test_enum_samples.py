"""Estimators on draws of EnumLM, 200,000 answers each: within 4 standard errors of the exact number, seed fixed.

A gradient is looked at along a few directions of the logits; a round is one estimate, and rounds give the error.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from enum_rounds import Listing, exact
from torch import Tensor

from safe_align.algorithms.advantages import gae, lagrangian
from safe_align.algorithms.surrogates import k3, token_rewards
from safe_align.bounds import student_t
from safe_align.tensors import segment_sum
from safe_align.testbeds.enum_lm import divergence, enum_lm, expectation, prefix_values, prompt_moments

BETA, PRICE, DRAWS, NUM_PROMPTS, DIRECTIONS = 0.3, 1.3, 200_000, 3, 6
DELTA, THERE = 0.2, 400


@pytest.fixture(scope='module')
def world():
    return enum_lm(NUM_PROMPTS)


@pytest.fixture(scope='module')
def directions(world):
    return torch.randn(DIRECTIONS, *world.policy.logits.shape, dtype=torch.float64, generator=generator(1))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slopes(world, directions: Tensor) -> Tensor:
    """How fast log-probabilities of tokens rise along each direction: (D, X, Y, L)."""
    answers, probs = world.answers, world.policy.logits.detach().softmax(-1)
    centred = directions - (probs * directions).sum(-1, keepdim=True)
    return centred[..., answers.prefixes, answers.tokens] * answers.mask


def draw(world, num_groups: int, responses: int, seed: int) -> tuple[Tensor, Tensor]:
    """Prompts, each as likely, and answers of the policy to them: (G, 1), (G, K)."""
    source = generator(seed)
    prompts = torch.randint(NUM_PROMPTS, (num_groups, 1), generator=source)
    probs = world.policy.log_probs().detach().exp()
    answers = torch.empty(num_groups, responses, dtype=torch.long)
    for prompt in range(NUM_PROMPTS):
        here = prompts[:, 0] == prompt
        drawn = torch.multinomial(probs[prompt], int(here.sum()) * responses, True, generator=source)
        answers[here] = drawn.view(-1, responses)
    return prompts, answers


def errors(estimates: Tensor, expected: Tensor) -> Tensor:
    """How many standard errors the mean of the estimates is away: (n, D), (D,) -> (D,)."""
    return (estimates.mean(0) - expected).abs() / (estimates.std(0) / len(estimates) ** 0.5)


def along(directions: Tensor, gradient: Tensor) -> Tensor:
    return (directions * gradient).sum((1, 2, 3))


def tokens_of(world, prompts: Tensor, answers: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Reads a table (..., X, Y, L) at the tokens of the drawn answers, (..., R); and which answer a token is of."""
    inside = world.answers.mask[answers]
    segments = torch.arange(len(answers)).repeat_interleave(inside.sum(1))
    return lambda table: table[..., prompts, answers, :][..., inside], segments


@pytest.mark.parametrize(
    ('right', 'gae_lambda', 'unbiased'), [(False, 1.0, True), (True, 0.95, True), (False, 0.5, False)]
)
def test_ppo_lag_s_advantages_of_drawn_answers(world, directions, right, gae_lambda, unbiased):
    prompts, answers = (one[:, 0] for one in draw(world, DRAWS, 1, 10))
    read, segments = tokens_of(world, prompts, answers)
    log_ratio = (world.policy.token_log_probs() - world.reference.token_log_probs()).detach()
    last = torch.nn.functional.one_hot(world.answers.lengths - 1, world.answers.max_tokens)
    found = []
    for score, sign in ((world.reward, -1), (world.cost, 1)):
        by_table = prefix_values(world.policy, sign * BETA * log_ratio + last * score[..., None])
        by_any = torch.randn(by_table.shape, dtype=torch.float64, generator=generator(2))
        values = read((by_table if right else by_any)[:, world.answers.prefixes])
        rewards = token_rewards(score[prompts, answers], read(log_ratio), segments, kl_coeff=BETA, clip=50.0, sign=sign)
        found.append(gae(rewards, values, segments, gamma=1.0, lam=gae_lambda)[0])
    weighed = read(slopes(world, directions)) * lagrangian(found[0], [found[1]], [PRICE])
    estimates = torch.stack([segment_sum(one, segments, DRAWS) for one in weighed], 1)
    log_probs = world.policy.log_probs()
    objective = expectation(log_probs, world.reward - PRICE * world.cost) / (1 + PRICE)
    objective = objective - BETA * divergence(log_probs, world.reference.log_probs())
    off = errors(estimates, along(directions, exact(objective, world.policy))).max()
    assert off < 4 if unbiased else off > 6


def test_both_estimates_of_the_divergence_have_its_mean_and_not_that_of_the_other_direction(world):
    prompts, answers = (one[:, 0] for one in draw(world, DRAWS, 1, 20))
    log_ratio = (world.policy.token_log_probs() - world.reference.token_log_probs()).detach()
    read, segments = tokens_of(world, prompts, answers)
    here = read(log_ratio)
    estimates = torch.stack([segment_sum(one, segments, DRAWS) for one in (here, k3(here))], 1)
    log_probs, reference = world.policy.log_probs().detach(), world.reference.log_probs()
    assert errors(estimates, divergence(log_probs, reference)).max() < 4
    assert errors(estimates, divergence(reference, log_probs)).min() > 10


ROUNDS = {
    'rloo': ('rloo', 4, 100, True), 'mean of the group': ('dr_grpo', 4, 100, False),
    'running mean': ('running_mean', 1, 200, True), 'running mean, several': ('running_mean', 4, 100, True),
    'mean of the round': ('reinforce_plus_plus', 1, 200, True),
}  # fmt: skip


@pytest.mark.parametrize(('advantage', 'responses', 'rounds', 'unbiased'), ROUNDS.values(), ids=ROUNDS)
def test_rounds_of_reinforce_with_the_moments_that_they_see(
    world, directions, enum_round, advantage, responses, rounds, unbiased
):
    """Mean and deviation of the costs are each round's own, as in training; rounds are large enough for that."""
    size = DRAWS // rounds // responses  # prompts of a round
    algorithm = enum_round(
        'reinforce_ci_lag', Listing.of(world), bound='student_t', advantage=advantage, lambda_init=PRICE,
        num_samples_per_prompt=responses, fail_prob=DELTA, safety_dataset_size=THERE, students_c1=0.0, students_c2=20.0,
    )  # fmt: skip
    log_probs = world.policy.log_probs()
    ratio = (log_probs - world.reference.log_probs()).detach()
    slope = slopes(world, directions).sum(-1)
    prompts, answers = draw(world, size * rounds, responses, 30)
    estimates = []
    for x, y in zip(prompts.split(size), answers.split(size), strict=True):
        scores = {name: getattr(world, name)[x, y].flatten() for name in ('reward', 'cost')}
        advantages, _ = algorithm._advantages(scores, ratio[x, y].flatten(), algorithm._move(scores))
        estimates.append((slope[:, x, y].flatten(1) * advantages).mean(1))
    average, spread = prompt_moments(log_probs, world.cost, responses)
    kappa = 20 * student_t.margin(THERE, delta=DELTA, low=0, high=0)[0]
    objective = expectation(log_probs, world.reward) - BETA * divergence(log_probs, world.reference.log_probs())
    pessimistic, plain = (
        along(directions, exact(objective - PRICE * (average + k * spread), world.policy)) for k in (kappa, 0.0)
    )
    off = errors(torch.stack(estimates), pessimistic).max()
    assert off < 4 if unbiased else off > 6
    assert errors(torch.stack(estimates), plain).max() > 6
