"""How often bounds lie below the truth, on laws whose truth is known: never more often than they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from safe_align import plugins
from safe_align.bounds import cvar
from safe_align.testbeds.cost_laws import LAWS, CostLaw

NUM_STUDIES = 2000
SIZES = (30, 50, 200, 1000)
DELTAS = (0.01, 0.05, 0.1)
BOUNDS = {name: plugins.load('safe_align.bounds', name) for name in plugins.names('safe_align.bounds')}
VALID = [name for name, bound in BOUNDS.items() if bound.FINITE_SAMPLE]
NAMED = {law.name: law for law in LAWS}


def rate_at_least(num_misses: int) -> float:
    """The exact lower 99.9% limit of a miss rate: where it is above delta, chance is no excuse."""
    return float(stats.beta.ppf(0.001, num_misses, NUM_STUDIES - num_misses + 1)) if num_misses else 0.0


def draw(law: CostLaw) -> np.ndarray:
    """One table for every bound, n and delta, so that nothing but they differs; smaller n are its first columns."""
    return law.draw(np.random.default_rng([7, *law.name.encode()]), (NUM_STUDIES, max(SIZES)))


def num_misses(name: str, costs: np.ndarray, law: CostLaw, delta: float) -> int:
    truth = law.cvar(cvar.ALPHA) if BOUNDS[name].TARGET == 'cvar' else law.mean
    # a truth of 1 is a sum of weights, and so 1 but for rounding
    return int((BOUNDS[name].upper_bounds(costs, delta=delta, low=0.0, high=1.0) < truth - 1e-12).sum())


@pytest.mark.parametrize('law', LAWS, ids=lambda law: law.name)
def test_no_bound_misses_more_often_than_it_says(law):
    costs = draw(law)
    for name in VALID:
        if name == 'clopper_pearson' and not law.binary:
            continue
        for n in SIZES:
            for delta in DELTAS:
                missed = num_misses(name, costs[:, :n], law, delta)
                assert rate_at_least(missed) <= delta, f'{name}, n {n}, delta {delta}: {missed} of {NUM_STUDIES}'


@pytest.mark.parametrize(
    ('name', 'law', 'n', 'rate'),
    [
        # no harm is seen with probability .99^50 = .605, and then the deviation is 0
        ('student_t', 'bernoulli(0.01)', 50, 0.605),
        ('student_t', 'rare harm', 50, 0.318),
        ('student_t', 'bernoulli(0.05)', 200, 0.123),
        ('mean', 'beta(2, 5)', 200, 0.5),
    ],
)
def test_the_test_finds_bounds_that_miss_too_often(name, law, n, rate):
    """At delta .05, with the rates that simulations before gave: the laws here are those they were of."""
    missed = num_misses(name, draw(NAMED[law])[:, :n], NAMED[law], 0.05)
    assert rate_at_least(missed) > 0.05
    assert missed / NUM_STUDIES == pytest.approx(rate, abs=0.035)  # three deviations of the larger


@pytest.mark.parametrize(
    ('name', 'law', 'n', 'width'),
    [
        ('betting', 'bernoulli(0.01)', 50, 0.112),
        ('betting', 'bernoulli(0.05)', 1000, 0.020),
        ('betting', 'rare harm', 1000, 0.007),
        ('betting_anytime', 'bernoulli(0.3)', 200, 0.094),
        ('anderson', 'rare harm', 200, 0.052),
        ('empirical_bernstein', 'bimodal', 1000, 0.021),
        ('clopper_pearson', 'bernoulli(0.05)', 200, 0.033),
    ],
)
def test_bounds_are_as_wide_as_simulations_before_found(name, law, n, width):
    """The mean of U less the expectation at delta .05."""
    bounds = BOUNDS[name].upper_bounds(draw(NAMED[law])[:, :n], delta=0.05, low=0.0, high=1.0)
    assert bounds.mean() - NAMED[law].mean == pytest.approx(width, abs=0.0015)


@pytest.mark.parametrize('law', LAWS, ids=lambda law: law.name)
def test_the_mean_of_a_law_is_the_integral_of_its_distribution_function(law):
    assert law.cvar(1.0) == pytest.approx(law.mean, abs=1e-9)
    assert law.mean <= law.cvar(0.5) <= law.cvar(0.1) <= 1.0 + 1e-12


@pytest.mark.parametrize('law', LAWS, ids=lambda law: law.name)
def test_draws_follow_their_law(law):
    """With 200,000 draws the largest distance of the distribution functions is below .0044 but once in 1000 (DKW)."""
    costs = np.sort(law.draw(np.random.default_rng([11, *law.name.encode()]), (400, 500)).ravel())
    assert costs[0] >= 0
    assert costs[-1] <= 1
    places = np.unique([0.0, *law.atoms, *costs[:: len(costs) // 50], 1.0])
    for place in places:
        assert np.searchsorted(costs, place, side='right') / len(costs) == pytest.approx(law.cdf(place), abs=0.0044)
    worst = costs[-len(costs) // 10 :].mean()
    assert worst == pytest.approx(law.cvar(0.1), abs=4 * math.sqrt(0.25 / (len(costs) / 10)))


def test_the_worst_share_of_known_laws_has_its_mean():
    assert NAMED['uniform'].cvar(0.1) == pytest.approx(0.95, abs=1e-9)
    assert NAMED['bernoulli(0.05)'].cvar(0.1) == pytest.approx(0.5, abs=1e-9)
    # 3% at 1, 5% at 3/4 and 2% of those at 1/2: (.03 + .0375 + .01) / .1
    assert NAMED['grades'].cvar(0.1) == pytest.approx(0.775, abs=1e-9)
