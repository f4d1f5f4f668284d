"""The four-armed and the two-prompt problem: published numbers, duality, and an independent optimisation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from safe_align.testbeds.s4 import Table, four_arms, two_prompts


@pytest.mark.parametrize(
    ('beta', 'policy', 'reward', 'cost', 'kl'),
    [
        (1.0, [0.085073, 0.173439, 0.314304, 0.427184], 2.083599, 0.839727, 0.535643),
        (0.5, [0.007424, 0.041142, 0.202669, 0.748765], 2.692775, 1.570869, 1.398804),
    ],
)
def test_the_unconstrained_optimum_is_the_published_one(beta, policy, reward, cost, kl):
    table = four_arms(beta)
    found = table.best_response(0.0)
    assert found[0] == pytest.approx(policy, abs=1e-6)
    values = table.values(found)
    assert [values.reward[0], values.cost[0], values.kl[0]] == pytest.approx([reward, cost, kl], abs=1e-6)


@pytest.mark.parametrize(
    ('beta', 'multiplier', 'policy', 'reward', 'kl', 'value', 'curvature'),
    [
        (1.0, 0.738806, [0.239457, 0.337406, 0.292077, 0.131061], 1.314741, 0.062843, 1.251898, 0.921070),
        (0.5, 0.862258, [0.167626, 0.392208, 0.344402, 0.095764], 1.368305, 0.142362, 1.297124, 1.469670),
    ],
)
def test_the_constrained_optimum_is_the_published_one(beta, multiplier, policy, reward, kl, value, curvature):
    table = four_arms(beta)
    found = table.optimum()
    assert found == pytest.approx(multiplier, abs=1e-6)
    best = table.best_response(found)
    assert best[0] == pytest.approx(policy, abs=1e-6)
    values = table.values(best)
    assert values.cost[0] == pytest.approx(0.0, abs=1e-12)  # complementary slackness
    assert [values.reward[0], values.kl[0]] == pytest.approx([reward, kl], abs=1e-6)
    assert values.reward[0] - beta * values.kl[0] == pytest.approx(table.dual(found), abs=1e-9)  # strong duality
    assert table.dual(found) == pytest.approx(value, abs=1e-6)
    step = 1e-4
    second = (table.dual(found + step) - 2 * table.dual(found) + table.dual(found - step)) / step**2
    assert second == pytest.approx(curvature, abs=1e-5)
    assert table.costs[0] ** 2 @ best[0] / beta == pytest.approx(curvature, abs=1e-6)  # Var(c) / beta, as E c = 0


def test_the_slope_of_the_dual_is_the_slack():
    for beta, slope in ((1.0, -0.839727), (0.5, -1.570869)):
        table = four_arms(beta)
        assert (table.dual(1e-6) - table.dual(-1e-6)) / 2e-6 == pytest.approx(slope, abs=1e-6)


def test_a_constraint_that_binds_nothing_costs_nothing():
    assert four_arms(0.5, threshold=2.0).optimum() == 0.0
    with pytest.raises(ValueError, match='no policy'):
        four_arms(0.5, threshold=-1.0).optimum()


def test_no_policy_that_keeps_the_constraint_is_better():
    """SLSQP over probabilities, from the reference."""
    table = four_arms(0.5)

    def loss(policy):
        values = table.values(policy[None])
        return 0.5 * values.kl[0] - values.reward[0]

    simplex = {'type': 'eq', 'fun': lambda p: p.sum() - 1}
    harmless = {'type': 'ineq', 'fun': lambda p: -p @ table.costs[0]}
    found = optimize.minimize(
        loss, table.reference[0], bounds=[(1e-9, 1)] * 4, constraints=[simplex, harmless], method='SLSQP',
        options={'ftol': 1e-14, 'maxiter': 500},
    )  # fmt: skip
    assert -found.fun == pytest.approx(table.dual(table.optimum()), abs=1e-8)


def test_an_average_constraint_lets_one_prompt_pay_for_another():
    table = two_prompts()
    average = table.optimum()
    assert average == pytest.approx(0.993002, abs=1e-6)
    values = table.values(table.best_response(average))
    assert values.cost == pytest.approx([0.688364, -0.688364], abs=1e-6)
    assert values.reward.mean() == pytest.approx(1.172236, abs=1e-6)
    assert values.rectified[0] == pytest.approx(1.013962, abs=1e-6)


def test_a_constraint_for_each_prompt_does_not():
    table = two_prompts()
    each = table.optimum_each()
    assert each == pytest.approx([1.209809, 0.0], abs=1e-6)
    values = table.values(table.best_response(each))
    assert values.cost == pytest.approx([0.0, -0.618434], abs=1e-6)
    assert values.reward.mean() == pytest.approx(0.893803, abs=1e-6)
    assert values.rectified[0] == pytest.approx(0.582744, abs=1e-6)


def test_the_dual_of_one_shot_alignment_is_the_same():
    """arXiv:2405.19544 with safety scores above 0 asked for: costs are their negatives, the reference is uniform."""
    scores = np.array([[1.0, -0.5, -2.0], [0.5, -0.2, -1.5]])
    table = Table(np.full((2, 3), 1 / 3), np.array([[0.0, 1.0, 2.0], [1.0, 0.0, -1.0]]), -scores, 0.5)
    assert table.optimum() == pytest.approx(0.679021, abs=1e-6)
    assert [table.dual(0.0), table.dual(table.optimum())] == pytest.approx([1.022160, 0.738495], abs=1e-6)
