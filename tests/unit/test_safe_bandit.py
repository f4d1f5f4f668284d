"""The bandit's truth, the optimality of its candidates, the choice of kappa by cross-fitting, and certified studies."""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import partial

import numpy as np
import pytest
from scipy import optimize, stats

from safe_align.algorithms.pessimism import Pessimism
from safe_align.bounds import student_t
from safe_align.testbeds import candidate, studies
from safe_align.testbeds.candidate import best_policy, evaluate
from safe_align.testbeds.cost_model import cost_model
from safe_align.testbeds.s4 import four_arms
from safe_align.testbeds.safe_bandit import BETA, COST_LAWS, Prompts, population
from safe_align.testbeds.selection import NUM_FOLDS, HeldOut, best_kappa, cross_fit

DELTA = 0.1


@pytest.fixture(scope='module')
def worlds() -> dict[str, studies.World]:
    return {law: studies.world(law) for law in COST_LAWS}


def four_arms_as_prompts(reference: np.ndarray) -> Prompts:
    table = four_arms(BETA)
    return Prompts(np.ones((1, 1)), np.log(reference)[None], table.rewards, table.costs)


def random_theta(prompts: Prompts, seed: int) -> np.ndarray:
    return 0.3 * np.random.default_rng(seed).standard_normal(prompts.start().shape)


def test_the_pessimistic_cost_is_the_published_one():
    prompts = four_arms_as_prompts(np.full(4, 0.25))
    point = evaluate(prompts, np.array([[0.2, -0.1, 0.4, 0.0]]), 0.3)
    assert [point.mean, point.std, point.violation] == pytest.approx([0.232152, 1.098407, 0.561673], abs=1e-6)
    assert point.pessimistic[0] == pytest.approx([-0.800033, -0.434157, 0.502437, 2.419434], abs=1e-6)
    assert point.violation_gradient[0] == pytest.approx([-0.314626, -0.161393, 0.036466, 0.439552], abs=1e-6)


def test_with_one_prompt_the_candidate_is_the_closed_form():
    table = four_arms(BETA)
    prompts = four_arms_as_prompts(table.reference[0])
    found = prompts.policy(best_policy(prompts, 0.0))
    assert found == pytest.approx(table.best_response(table.optimum()), abs=candidate.TOLERANCE**0.5)


@pytest.mark.parametrize('law', COST_LAWS)
def test_gradients_are_those_of_finite_differences(law):
    prompts = population(law, num_prompts=50)
    theta, step = random_theta(prompts, 0), 1e-6
    point = evaluate(prompts, theta, 0.4)
    for row, column in itertools.product((0, 1, 5, 9), range(6)):
        shift = np.zeros_like(theta)
        shift[row, column] = step
        above, below = (evaluate(prompts, theta + sign * shift, 0.4) for sign in (1, -1))
        slopes = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True) if isinstance(a, float)]
        found = [point.objective_gradient, point.violation_gradient, None, point.std_gradient]
        for slope, gradient in zip(slopes, found, strict=True):
            if gradient is not None:
                assert gradient[row, column] == pytest.approx(slope, abs=1e-7)


def test_the_hessian_is_that_of_finite_differences(monkeypatch):
    """Where the constraint has a price of 0; the rest of it only decides how fast a candidate is found."""
    prompts = population('bimodal', num_prompts=40)
    theta = best_policy(prompts.with_costs(np.full_like(prompts.costs, -9.0)), 0.0)  # near which it is positive
    found, _ = candidate._factor(candidate._squares(prompts.features), evaluate(prompts, theta, 0.4), 0.4, 0.0, 0.0)
    lower = np.tril(found)
    direction = random_theta(prompts, 2)
    direction[:, 0] = 0.0
    flat = direction[:, 1:].T.ravel()
    above, below = (evaluate(prompts, theta + step * direction, 0.4).objective_gradient for step in (1e-5, -1e-5))
    assert lower @ (lower.T @ flat) == pytest.approx(-((above - below) / 2e-5)[:, 1:].T.ravel(), abs=1e-6)


@pytest.mark.parametrize(('num_prompts', 'kappa'), [(60, 0.373), (600, 0.117), (1200, 0.0)])
def test_no_other_optimiser_finds_a_better_candidate(num_prompts, kappa):
    """SLSQP with the same functions, from the reference."""
    prompts = population('bimodal').draw(num_prompts, np.random.default_rng(3))
    shape = prompts.start().shape

    def loss(flat):
        point = evaluate(prompts, flat.reshape(shape), kappa)
        return -point.objective, -point.objective_gradient.ravel()

    harmless = {
        'type': 'ineq',
        'fun': lambda flat: -evaluate(prompts, flat.reshape(shape), kappa).violation,
        'jac': lambda flat: -evaluate(prompts, flat.reshape(shape), kappa).violation_gradient.ravel(),
    }
    other = optimize.minimize(
        loss, np.zeros(shape).ravel(), jac=True, constraints=[harmless], method='SLSQP',
        options={'ftol': 1e-10, 'maxiter': 300},
    )  # fmt: skip
    point = evaluate(prompts, best_policy(prompts, kappa), kappa)
    assert point.violation < 1e-4
    assert point.objective > -other.fun - 1e-4
    # the constraint binds: a gradient of the objective that is a multiple of the constraint's
    gains, prices = point.objective_gradient.ravel(), point.violation_gradient.ravel()
    price = gains @ prices / (prices @ prices)
    assert price > 0
    assert np.abs(gains - price * prices).max() < 2e-4


def test_the_population_is_the_published_one_up_to_its_seed(worlds):
    """Optima and reference of another draw of the same laws: Er 2.1037, KL .892, harm .359; 1.4550 and .0196."""
    best, rare = worlds['bimodal'].best, worlds['rare harm'].best
    assert [best.reward, best.cost, best.kl, best.harm] == pytest.approx([2.1037, 0.0, 0.892, 0.359], abs=0.03)
    assert [rare.reward, rare.cost] == pytest.approx([1.4550, 0.0], abs=0.06)
    assert rare.harm == pytest.approx(0.1 / 5.1, abs=1e-6)  # -.1 and 5 with a mean of 0
    start = worlds['bimodal'].prompts.start()
    reference = worlds['bimodal'].prompts.truth(start)
    assert [reference.reward, reference.cost, reference.kl] == pytest.approx([1.3213, -0.5025, 0.0], abs=0.03)
    assert worlds['rare harm'].prompts.truth(start).cost == pytest.approx(0.066, abs=0.02)


def test_the_truth_is_the_sum_over_prompts_and_responses():
    prompts = population('rare harm', num_prompts=7)
    theta = random_theta(prompts, 1)
    totals = np.zeros(5)
    for x in range(7):
        weights = np.exp(prompts.log_reference[x] + prompts.features[x] @ theta)
        for y, p in enumerate(weights / weights.sum()):
            cost, ratio = prompts.costs[x, y], np.log(p) - prompts.log_reference[x, y]
            totals += p / 7 * np.array([prompts.rewards[x, y], cost, ratio, cost > 0, max(cost, 0)])
    assert np.array(prompts.truth(theta)) == pytest.approx(totals, abs=1e-12)


def test_responses_are_drawn_from_the_policy():
    prompts = population('bimodal', num_prompts=3)
    theta = random_theta(prompts, 1)
    many = prompts.at(np.repeat(np.arange(3), 20_000))
    drawn = many.respond(theta, np.random.default_rng(0).random((60_000, 1))).reshape(3, -1)
    for x, policy in enumerate(prompts.policy(theta)):
        shares = np.bincount(drawn[x], minlength=6) / 20_000
        assert (np.abs(shares - policy) < 4 * np.sqrt(policy * (1 - policy) / 20_000)).all()


def test_what_is_common_to_all_archetypes_changes_nothing():
    prompts = population('bimodal', num_prompts=30)
    theta = random_theta(prompts, 4)
    shifted = theta + np.arange(10.0)[:, None]
    assert evaluate(prompts, shifted, 0.3)[:2] == pytest.approx(evaluate(prompts, theta, 0.3)[:2], abs=1e-10)


def test_costs_held_out_do_not_move_what_is_fitted():
    """A higher cost of all that is held out raises the costs seen by just that, with the same responses."""
    prompts = population('bimodal').draw(60, np.random.default_rng(0))
    first = np.arange(60) % NUM_FOLDS == 0
    raised = prompts.with_costs(prompts.costs + first[:, None])
    before, after = (cross_fit(table, [0.3], np.random.default_rng(1))[0] for table in (prompts, raised))
    assert after.costs[first] == pytest.approx(before.costs[first] + 1, abs=1e-9)
    assert not np.allclose(after.costs[~first], before.costs[~first])


def test_costs_held_out_are_near_the_truth_and_those_fitted_are_not(worlds):
    prompts, shown, held_out, true = worlds['bimodal'].prompts, [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        sample = prompts.draw(60, rng)
        theta = best_policy(sample, 0.4)
        shown.append(evaluate(sample, theta, 0.4).mean)
        held_out.append(cross_fit(sample, [0.4], rng)[0].mean)
        true.append(prompts.truth(theta).cost)
    assert np.mean(true) - np.mean(shown) > 0.1
    assert abs(np.mean(true) - np.mean(held_out)) < 0.1


def test_the_best_kappa_is_that_of_the_largest_chance_times_gain():
    costs = np.zeros(60)
    pessimism = [Pessimism(partial(student_t.margin, delta=DELTA, low=0, high=0), 40)] * 3
    # chances of nearly 0, .97 and nearly 1
    found = [HeldOut(k, g, m, 1.0, costs) for k, g, m in ((1.0, 9.0, 5.0), (2.0, 1.0, -0.6), (3.0, 0.5, -0.9))]
    assert best_kappa(found, pessimism) == 2.0
    worthless = [one._replace(gain=-1.0) for one in found]
    assert best_kappa(worthless, pessimism) == 3.0


def test_the_chance_of_passing_is_what_its_kappa_asks_for():
    margin = partial(student_t.margin, delta=DELTA, low=0, high=0)
    for chance in (0.3, 0.5, 0.9):
        kappa, _ = Pessimism(margin, 40, pass_chance=chance).kappa(60)
        assert Pessimism(margin, 40).chance(0.7 - kappa * 2.0, 2.0, 60, 0.7) == pytest.approx(chance, abs=1e-9)
    constant = Pessimism(lambda n: (0.0, 0.5), 40)  # a bound with a margin in the unit of the costs
    assert constant.chance(0.2, 1.0, 60, 0.7) == pytest.approx(0.5)


def lower_limit(count: int, total: int) -> float:
    return float(stats.beta.ppf(0.001, count, total - count + 1)) if count else 0.0


def outcomes_of(world: studies.World, num_prompts: int, seeds: int, tests: tuple[str, ...], auto: bool = False):
    found = defaultdict(list)
    for seed in range(seeds):
        for one in studies.study(world, num_prompts, delta=DELTA, tests=tests, seed=seed, auto=auto):
            found[one.method, one.test].append(one)
    return found


def test_unsafe_candidates_are_rarely_returned_and_more_prompts_are_better(worlds):
    few = outcomes_of(worlds['bimodal'], 100, 24, ('student_t', 'betting'))
    many = outcomes_of(worlds['bimodal'], 1000, 6, ('student_t', 'betting'))
    for cell in (*few.values(), *many.values()):
        assert lower_limit(sum(one.unsafe and one.returned for one in cell), len(cell)) <= DELTA
    assert np.mean([one.unsafe for one in few['plug-in', 'student_t']]) > 0.5
    assert not any(one.unsafe for one in few['HC 4, 2', 'student_t'])
    for method in ('HC 1, 1', 'Seldonian 2x', 'HC 4, 2'):  # regret falls with n
        rewards = [np.mean([one.truth.reward for one in found[method, 'betting']]) for found in (few, many)]
        assert rewards[1] > rewards[0] + 0.05
    # and a return gets likelier: .31 to 1 in 200 seeds
    returned = [np.mean([one.returned for one in found['HC 4, 2', 'betting']]) for found in (few, many)]
    assert returned[1] > returned[0] + 0.3


def test_the_kappas_of_a_study_are_the_published_ones(worlds):
    found = outcomes_of(worlds['bimodal'], 100, 1, ('student_t',))
    kappas = {method: cell[0].kappa for (method, _), cell in found.items()}
    published = {'plug-in': 0, 'HC 1, 1': 0.373, 'Seldonian 2x': 0.412, 'HC 4, 2': 1.082}
    assert {name: kappas[name] for name in published} == pytest.approx(published, abs=6e-4)


def test_where_harm_is_rare_the_test_alone_protects(worlds):
    tests = ('student_t', 'betting', 'clopper_pearson')
    found = outcomes_of(worlds['rare harm'], 100, 8, tests)
    for (_, test), cell in found.items():
        assert np.mean([one.unsafe for one in cell]) > 0.9
        returned = sum(one.unsafe and one.returned for one in cell)
        assert lower_limit(returned, 8) <= DELTA
        assert test == 'student_t' or returned == 0


def test_the_automatic_kappa_is_less_pessimistic_than_the_largest_fixed_one_and_safe(worlds):
    found = outcomes_of(worlds['bimodal'], 300, 3, ('student_t', 'betting'), auto=True)
    auto, fixed = found[studies.AUTO, 'student_t'], found['HC 4, 2', 'student_t']
    assert not any(one.unsafe for one in auto)
    assert np.mean([one.truth.reward for one in auto]) > np.mean([one.truth.reward for one in fixed]) + 0.05
    # betting takes more off than Student's t, so it is given more
    assert np.mean([one.kappa for one in found[studies.AUTO, 'betting']]) > np.mean([one.kappa for one in auto])


def test_a_study_is_its_seed(worlds):
    options = {'delta': DELTA, 'tests': ('student_t',), 'auto': False}
    first, again = (studies.study(worlds['bimodal'], 50, seed=3, **options) for _ in range(2))
    assert first == again
    assert first != studies.study(worlds['bimodal'], 50, seed=4, **options)


def test_pairs_say_nothing_of_what_is_common_to_a_prompt_and_signs_do(worlds):
    prompts = worlds['bimodal'].prompts
    shifted = prompts.with_costs(prompts.costs + np.linspace(-2, 2, len(prompts))[:, None])
    for signs in (False, True):
        scores, other = (cost_model(one, np.random.default_rng(0), signs=signs) for one in (prompts, shifted))
        assert np.allclose(scores, other) == (not signs)
    # both rank archetypes as the true costs of red prompts do
    red = prompts.features[:, 1] > 1
    assert (np.diff(scores[red].mean(0)) > 0).all()
