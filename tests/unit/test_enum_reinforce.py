"""REINFORCE under each bound against the exact gradient of what it maximises, over all answers of EnumLM.

E reward - beta KL - lambda (m + kappa s), m and s of the prompts' mean costs. The loss is a mean over responses. What
weighs the answers is their probability; mean and deviation of the costs are the exact ones, as in a round without end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from enum_rounds import Listing, collect, distance, exact, gradient

from safe_align.algorithms.group_advantages import pessimistic_cost, pessimistic_rloo, rloo
from safe_align.bounds import empirical_bernstein, mean, student_t
from safe_align.testbeds.enum_lm import Answers, divergence, enum_lm, expectation, prompt_moments, tilted

BETA, PRICE, EXACT = 0.3, 1.3, 1e-10
HERE, THERE, DELTA, RANGE = 50, 400, 0.2, (-1.0, 4.0)  # prompts of a round and of the test
BOUNDS = {'mean': mean, 'student_t': student_t, 'empirical_bernstein': empirical_bernstein}
FLAGS = {
    'fail_prob': DELTA, 'safety_dataset_size': THERE, 'range': list(RANGE), 'students_c1': 2.0, 'lambda_init': PRICE,
}  # fmt: skip


@pytest.fixture(scope='module')
def world():
    return enum_lm(2)


@pytest.fixture(scope='module')
def small():
    """So few answers that all pairs are a small round: 21 to a prompt."""
    return enum_lm(3, Answers(max_tokens=2))


def kappa_of(bound: str) -> float:
    """Twice the margin of the round and once that of the test."""
    here, there = (BOUNDS[bound].margin(n, delta=DELTA, low=RANGE[0], high=RANGE[1])[0] for n in (HERE, THERE))
    return 2 * here + there


def maximised(world, bound: str, *, scale: float = 1, kl: float = BETA, responses: int = 1, temperature: float = 1):
    log_probs, reference = (one.log_probs(temperature) for one in (world.policy, world.reference))
    average, spread = prompt_moments(log_probs, world.cost, responses)
    risk = average + kappa_of(bound) * spread
    return scale * (expectation(log_probs, world.reward) - PRICE * risk) - kl * divergence(log_probs, reference)


def with_moments(algorithm, world, responses: int, temperature: float = 1):
    """Its pessimism sees a round of HERE prompts, and their exact mean and deviation."""
    moments = prompt_moments(world.policy.log_probs(temperature).detach(), world.cost, responses)
    (constraint,) = algorithm.constraints
    estimate = constraint.pessimism([float(n) for n in range(HERE)])
    estimate = estimate._replace(mean=float(moments[0]), std=float(moments[1]))
    algorithm.constraints = [replace(constraint, pessimism=lambda costs: estimate)]
    return algorithm


def ascent(algorithm, number: int = 0) -> torch.Tensor:
    (step,) = collect(algorithm, number).steps
    return -gradient(algorithm, step)


def scored(world, weights: torch.Tensor) -> torch.Tensor:
    """sum_y weights(x, y) grad log pi(y | x), a mean over prompts."""
    return exact((weights * world.policy.log_probs()).sum(1).mean(), world.policy)


@pytest.mark.parametrize('temperature', [1.0, 0.7])
@pytest.mark.parametrize(('normalize', 'scale'), [('none', 1.0), ('one_plus_lambda', 1 / (1 + PRICE))])
@pytest.mark.parametrize('bound', BOUNDS)
def test_one_response_a_prompt_gives_the_exact_gradient_of_every_bound(
    world, enum_round, bound, normalize, scale, temperature
):
    """With the mean of rounds before as the baseline, which is any number."""
    listing = Listing.of(world, temperature=temperature)
    algorithm = enum_round('reinforce_ci_lag', listing, bound=bound, lambda_normalize=normalize, **FLAGS)
    with_moments(algorithm, world, 1, temperature).history = np.array([7.0, 10.0])
    expected = exact(maximised(world, bound, scale=scale, temperature=temperature), world.policy)
    assert distance(ascent(algorithm), expected) < EXACT
    assert expected.abs().max() > 0.01


def test_the_first_round_leaves_each_return_out_of_its_own_baseline(world, enum_round):
    """All answers at once have one baseline, so the round is (n / (n - 1)) times the gradient; the next one is it."""
    listing = Listing.of(world)
    algorithm = with_moments(enum_round('reinforce_ci_lag', listing, bound='student_t', **FLAGS), world, 1)
    expected = exact(maximised(world, 'student_t'), world.policy)
    count = len(listing.prompts)
    assert distance(ascent(algorithm) * (count - 1) / count, expected) < EXACT
    assert distance(ascent(algorithm, 1), expected) < EXACT


@pytest.mark.parametrize('responses', [1, 2])
def test_in_the_first_round_no_response_is_in_its_own_baseline(enum_round, responses):
    """All rounds of two prompts, 9 or 81 of them, where an answer is one of three tokens."""
    draw = torch.Generator().manual_seed(3)
    world = enum_lm(2, Answers(2, 1))
    tables = torch.randn(2, 2, 3, dtype=torch.float64, generator=draw)
    world = replace(world, reward=tables[0], cost=tables[1])
    algorithm = enum_round(
        'reinforce_ci_lag', Listing.of(world), bound='student_t', num_samples_per_prompt=responses, **FLAGS
    )
    algorithm = with_moments(algorithm, world, responses)
    log_probs = world.policy.log_probs().detach()
    divergences, weights = log_probs - world.reference.log_probs(), torch.zeros_like(log_probs)
    prompts = torch.arange(2).repeat_interleave(responses)
    for answers in torch.cartesian_prod(*[torch.arange(3)] * (2 * responses)):
        algorithm.history = np.zeros(2)
        scores = {'reward': world.reward[prompts, answers], 'cost': world.cost[prompts, answers]}
        estimates = algorithm._move(scores)
        advantages, _ = algorithm._advantages(scores, divergences[prompts, answers], estimates)
        chance = log_probs[prompts, answers].sum().exp() / responses
        weights.index_put_((prompts, answers), chance * advantages, accumulate=True)
    expected = exact(maximised(world, 'student_t', responses=responses), world.policy)
    assert distance(scored(world, weights), expected) < EXACT


def test_every_other_objective_is_told_apart(world, enum_round):
    algorithm = enum_round('reinforce_ci_lag', Listing.of(world), bound='student_t', **FLAGS)
    found = ascent(with_moments(algorithm, world, 1))
    for wrong in ({'kl': -BETA}, {'scale': 1 / (1 + PRICE)}, {'kl': BETA / (1 + PRICE)}, {'responses': 2}):
        assert distance(found, exact(maximised(world, 'student_t', **wrong), world.policy)) > 1e-3, wrong
    assert distance(found, exact(maximised(world, 'mean'), world.policy)) > 1e-3
    log_probs, reference = world.policy.log_probs(), world.reference.log_probs()
    forward = maximised(world, 'student_t', kl=0) - BETA * divergence(reference, log_probs)
    assert distance(found, exact(forward, world.policy)) > 1e-3


@pytest.mark.parametrize(('normalize', 'scale'), [('none', 1.0), ('one_plus_lambda', 1 / (1 + PRICE))])
@pytest.mark.parametrize('bound', BOUNDS)
def test_all_pairs_of_responses_give_the_exact_gradient_of_every_bound(small, enum_round, bound, normalize, scale):
    algorithm = enum_round(
        'reinforce_ci_lag', Listing.of(small, 2), bound=bound, lambda_normalize=normalize, advantage='rloo',
        num_samples_per_prompt=2, **FLAGS,
    )  # fmt: skip
    expected = exact(maximised(small, bound, scale=scale, responses=2), small.policy)
    assert distance(ascent(with_moments(algorithm, small, 2)), expected) < EXACT
    one = exact(maximised(small, bound, scale=scale), small.policy)
    assert bound == 'mean' or distance(one, expected) > 1e-4


@pytest.mark.parametrize('bound', BOUNDS)
def test_the_mean_of_the_group_gives_half_of_that_with_two_responses(small, enum_round, bound):
    """(K - 1) / K, of the bound as of the mean: what is taken off depends on no part of the response's own."""
    algorithm = enum_round(
        'reinforce_ci_lag', Listing.of(small, 2), bound=bound, advantage='dr_grpo', num_samples_per_prompt=2, **FLAGS
    )
    expected = exact(maximised(small, bound, responses=2), small.policy)
    assert distance(ascent(with_moments(algorithm, small, 2)), expected / 2) < EXACT


def test_grpo_weighs_an_answer_by_the_inverse_of_its_length(small, enum_round):
    """Half of grad E[G / length] - E[G] grad E[1 / length] with two responses, whose returns are apart."""
    algorithm = enum_round(
        'reinforce_ci_lag', Listing.of(small, 2), bound='mean', advantage='grpo', num_samples_per_prompt=2, **FLAGS
    )
    found = ascent(with_moments(algorithm, small, 2))
    log_probs = small.policy.log_probs()
    returns = (small.reward - PRICE * small.cost - BETA * (log_probs - small.reference.log_probs())).detach()
    inverse = 1 / small.answers.lengths.double()
    per_prompt = (log_probs.exp() * returns).sum(1, keepdim=True).detach()
    assert distance(found, exact(expectation(log_probs, (returns - per_prompt) * inverse) / 2, small.policy)) < EXACT
    assert distance(found, exact(maximised(small, 'mean') / 2, small.policy)) > 1e-3


def test_all_1_863_225_pairs_of_answers_to_a_prompt_give_the_exact_gradient():
    """The advantages alone, since a round of them would be large: RLOO, and the pessimistic one."""
    world, kappa = enum_lm(1), 0.7
    log_probs = world.policy.log_probs()
    probs, reward, cost = (one.flatten() for one in (log_probs.detach().exp(), world.reward, world.cost))
    pairs = torch.cartesian_prod(*[torch.arange(len(probs))] * 2)
    assert len(pairs) == 1365**2
    chance = probs[pairs].prod(1, keepdim=True) / 2
    average, spread = prompt_moments(log_probs, world.cost, 2)
    moments = (kappa, average.item(), spread.item())
    bound = exact(average + kappa * spread, world.policy)

    def estimated(advantages: torch.Tensor) -> torch.Tensor:
        weights = torch.zeros_like(probs).index_add_(0, pairs.flatten(), (chance * advantages).flatten())
        return scored(world, weights[None])

    rewards = exact(expectation(world.policy.log_probs(), world.reward), world.policy)
    assert distance(estimated(rloo(reward[pairs])), rewards) < EXACT
    assert distance(estimated(pessimistic_rloo(cost[pairs], *moments)), bound) < EXACT
    assert distance(estimated(pessimistic_cost(cost[pairs], *moments)), bound) < EXACT
    assert distance(estimated(rloo(pessimistic_cost(cost[pairs], *moments))), bound) > 1e-3


@pytest.mark.parametrize(('normalize', 'beta'), [('none', BETA), ('one_plus_lambda', BETA * (1 + PRICE))])
def test_at_the_optimum_in_closed_form_the_gradient_is_0(small, enum_round, normalize, beta):
    """reference x exp((r - lambda c) / beta), where costs are taken at their mean."""
    best = enum_lm(3, small.answers)
    best.policy.logits.data.copy_(tilted(small.reference, small.reward - PRICE * small.cost, beta)[0].logits.detach())
    for world, is_best in ((best, True), (small, False)):
        algorithm = enum_round(
            'reinforce_ci_lag', Listing.of(world, 2), bound='mean', lambda_normalize=normalize, rloo=True,
            num_samples_per_prompt=2, **FLAGS,
        )  # fmt: skip
        steepest = ascent(with_moments(algorithm, world, 2)).abs().max()
        assert steepest < EXACT if is_best else steepest > 1e-3
