"""Advantages of groups against published numbers, and the pessimistic cost against the exact gradient of its bound."""

from __future__ import annotations

import itertools

import pytest
import torch

from safe_align.algorithms.group_advantages import (
    global_mean,
    group_mean,
    grpo,
    pessimistic_cost,
    pessimistic_rloo,
    reinforce_plus_plus,
    rloo,
)
from safe_align.algorithms.multiplier import Multiplier, Newton
from safe_align.algorithms.pessimism import Pessimism
from safe_align.bounds import empirical_bernstein, mean, student_t

REWARDS = torch.tensor([[1.0, 2, 3, 6]])
TWO = torch.tensor([[1.0, 2, 3, 6], [0, 1, 1, 2]])


def test_published_advantages():
    assert rloo(REWARDS)[0].tolist() == pytest.approx([-2.666667, -1.333333, 0, 4], abs=1e-6)
    assert group_mean(REWARDS)[0].tolist() == [-2, -1, 0, 3]
    assert grpo(REWARDS)[0].tolist() == pytest.approx([-0.925777, -0.462889, 0, 1.388666], abs=1e-6)
    assert global_mean(TWO).flatten().tolist() == [-1, 0, 1, 4, -2, -1, -1, 0]
    assert reinforce_plus_plus(TWO).flatten().tolist() == pytest.approx(
        [-0.577350, 0, 0.577350, 2.309401, -1.154701, -0.577350, -0.577350, 0], abs=1e-6
    )
    assert reinforce_plus_plus(TWO, by_group=True).flatten().tolist() == pytest.approx(
        [-1.414214, -0.707107, 0, 2.121320, -0.707107, 0, 0, 0.707107], abs=1e-6
    )


def test_groups_without_a_difference_have_no_advantage():
    for advantage in (rloo, group_mean, grpo, reinforce_plus_plus):
        assert advantage(torch.full((2, 4), 3.0)).abs().max() == 0


def test_centring_leaves_the_price_of_a_cost_alone():
    # r [1 2 3 6], c [0 1 0 1], lambda 1.5
    costs = torch.tensor([[0.0, 1, 0, 1]])
    assert group_mean(REWARDS - 1.5 * costs)[0].tolist() == pytest.approx([-1.25, -1.75, 0.75, 2.25])


def test_the_published_pessimistic_cost_and_gradient():
    theta = torch.tensor([0.2, -0.1, 0.4, 0], dtype=torch.float64)
    costs = torch.tensor([-1, -0.5, 0.5, 2], dtype=torch.float64)
    policy = theta.softmax(0)
    average = float(policy @ costs)
    spread = float((policy @ costs.square() - average**2).sqrt())
    assert (average, spread) == pytest.approx((0.232152, 1.098407), abs=1e-6)
    taken = pessimistic_cost(costs[:, None], 0.3, average, spread)[:, 0]
    assert taken.tolist() == pytest.approx([-0.800033, -0.434157, 0.502437, 2.419434], abs=1e-6)
    gradient = policy * (taken - policy @ taken)
    assert gradient.tolist() == pytest.approx([-0.314626, -0.161393, 0.036466, 0.439552], abs=1e-6)


THETA = torch.tensor([[0.2, -0.1, 0.4, 0], [0.5, 0.1, -0.3, 0.2]], dtype=torch.float64)
ARM_COSTS = torch.tensor([[-1, -0.5, 0.5, 2], [0.3, -1.2, 0.7, -0.4]], dtype=torch.float64)


def outcomes(theta: torch.Tensor, count: int):
    """Every prompt and draw of `count` arms, with its probability."""
    policy = theta.softmax(1)
    for prompt in range(2):
        for arms in itertools.product(range(4), repeat=count):
            yield prompt, list(arms), policy[prompt, list(arms)].prod() / 2


def moments(theta: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, over prompts, of the mean cost of `count` responses."""
    first = sum(p * ARM_COSTS[x, arms].mean() for x, arms, p in outcomes(theta, count))
    second = sum(p * ARM_COSTS[x, arms].mean() ** 2 for x, arms, p in outcomes(theta, count))
    return first, (second - first**2).sqrt()


def estimated(costs_of, count: int) -> torch.Tensor:
    """The expectation of mean_j cost_j grad log pi(y_j), by enumeration."""
    average, spread = (float(x) for x in moments(THETA, count))
    policy, total = THETA.softmax(1), torch.zeros_like(THETA)
    for prompt, arms, p in outcomes(THETA, count):
        for cost, arm in zip(costs_of(ARM_COSTS[prompt, arms][None], 0.7, average, spread)[0], arms, strict=True):
            score = -policy[prompt]
            score = score + torch.eye(4, dtype=torch.float64)[arm]
            total[prompt] += p * cost / count * score
    return total


@pytest.mark.parametrize('count', [1, 2, 3])
def test_the_pessimistic_cost_gives_the_exact_gradient_of_the_bound_over_prompts(count):
    theta = THETA.clone().requires_grad_()
    average, spread = moments(theta, count)
    (exact,) = torch.autograd.grad(average + 0.7 * spread, theta)
    assert (estimated(pessimistic_cost, count) - exact).abs().max() < 1e-12
    if count > 1:
        assert (estimated(pessimistic_rloo, count) - exact).abs().max() < 1e-12


def test_leaving_one_out_of_the_pessimistic_cost_itself_would_be_biased():
    """Each response is a part of the sums that the others are weighed by."""
    theta = THETA.clone().requires_grad_()
    average, spread = moments(theta, 2)
    (exact,) = torch.autograd.grad(average + 0.7 * spread, theta)
    assert (estimated(lambda *a: rloo(pessimistic_cost(*a)), 2) - exact).abs().max() > 0.01


@pytest.mark.parametrize(
    ('delta', 'here', 'there', 'c1', 'c2', 'kappa'),
    [
        (0.1, 256, 1000, 1, 1, 0.120858), (0.1, 256, 1000, 4, 2, 0.402326), (0.1, 256, 100, 4, 2, 0.579252),
        (0.1, 32, 1000, 4, 2, 1.007037), (0.05, 256, 1000, 4, 2, 0.516839),
    ],
)  # fmt: skip
def test_the_published_kappas(delta, here, there, c1, c2, kappa):
    pessimism = Pessimism(lambda n: student_t.margin(n, delta=delta, low=0, high=0), there, c1, c2)
    costs = [float(n % 7) for n in range(here)]
    estimate = pessimism(costs)
    assert estimate.kappa == pytest.approx(kappa, abs=1e-6)
    assert estimate.bound == pytest.approx(estimate.mean + kappa * estimate.std, abs=1e-5)


@pytest.mark.parametrize('bound', [mean, student_t, empirical_bernstein])
def test_a_bound_is_its_margin(bound):
    costs = [0.1, 0.7, 0.3, 0.35, 0.2, 0.9] * 20
    kappa, constant = bound.margin(120, delta=0.2, low=0.0, high=5.0)
    spread = torch.tensor(costs, dtype=torch.float64)
    expected = spread.mean() + kappa * spread.std() + constant
    assert bound.upper_bound(costs, delta=0.2, low=0.0, high=5.0) == pytest.approx(float(expected), rel=1e-12)


def test_automatic_pessimism_passes_the_test_as_often_as_it_says():
    """Normal costs; a policy whose bound of this round is just kept; the test is Student's, on fresh prompts."""
    generator = torch.Generator().manual_seed(0)
    margin = lambda n: student_t.margin(n, delta=0.1, low=0, high=0)  # noqa: E731
    pessimism = Pessimism(margin, 100, pass_chance=0.9)
    passed = 0
    for _ in range(2000):
        here = torch.randn(50, generator=generator, dtype=torch.float64)
        threshold = pessimism(here.tolist()).bound
        there = torch.randn(100, generator=generator, dtype=torch.float64)
        passed += student_t.upper_bound(there.tolist(), delta=0.1) <= threshold
    assert 0.87 < passed / 2000 < 0.93


def test_equal_costs_are_their_own_bound_so_that_they_keep_a_threshold_that_they_are_at():
    """A bound a hair above it would be a violation, and with no variance Newton's step from it is as far as it goes."""
    estimate = Pessimism(lambda n: (1.0, 0.0), 10)([2.0, 2.0, 2.0])
    assert (estimate.std, estimate.bound) == (0.0, 2.0)
    multiplier = Multiplier(2.0, rule=Newton(0.02))
    assert multiplier.move(estimate.bound - multiplier.threshold, estimate.std**2) == 1.0
