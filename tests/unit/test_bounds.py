"""Upper bounds of an expected cost: worked numbers, what must hold for any costs, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safe_align import plugins
from safe_align.bounds import CAP, _capital, anderson, betting, betting_anytime, clopper_pearson, cvar, hoeffding
from safe_align.config import UserError

BOUNDS = {name: plugins.load('safe_align.bounds', name) for name in plugins.names('safe_align.bounds')}
ANY_COSTS = sorted(set(BOUNDS) - {'clopper_pearson'})
X1 = np.array(
    [
        0.02,
        0.15,
        0.03,
        0.4,
        0.08,
        0.11,
        0.27,
        0.05,
        0.33,
        0.09,
        0.01,
        0.62,
        0.14,
        0.07,
        0.19,
        0.22,
        0.04,
        0.12,
        0.3,
        0.06,
    ]
)
X2 = (37 * np.arange(1, 201) % 101) / 202
X3 = np.zeros(100)
X3[[10, 40, 70, 90]] = 1

GOLDEN = {  # X1; X2; X2 at delta .1; X3
    'mean': (0.165, 0.248416, 0.248416, 0.04),
    'student_t': (0.224721, 0.265274, 0.261533, 0.072701),
    'hoeffding': (0.438666, 0.334957, 0.324287, 0.162387),
    'empirical_bernstein': (0.711833, 0.319377, 0.308511, 0.180438),
    'anderson': (0.429746, 0.333106, 0.322867, 0.162387),
    # from the definition in 40 digits; published as .272613 and .278146, which is one more in the last digit
    'betting': (0.375572, 0.277553, 0.272612, 0.110340),
    'betting_anytime': (0.375572, 0.278145, 0.273474, 0.107255),
}


def bound(name, costs, delta=0.05, low=0.0, high=1.0, **options):
    return BOUNDS[name].upper_bound(costs, delta=delta, low=low, high=high, **options)


def capital(costs, m: float, delta: float, anytime: bool) -> float:
    """The capital of arXiv:2010.09686 as a loop; the largest that it ever was, if that counts."""
    seen, squares, variance, value, best = 0.0, 0.0, 0.25, 1.0, 1.0
    for t, x in enumerate(costs, 1):
        horizon = t * math.log(1 + t) if anytime else len(costs)
        bet = min(math.sqrt(2 * math.log(1 / delta) / (horizon * variance)), CAP / (1 - m))
        value *= 1 - bet * (x - m)
        best = max(best, value)
        seen += x
        squares += (x - (0.5 + seen) / (t + 1)) ** 2
        variance = (0.25 + squares) / (t + 1)
    return best if anytime else value


@pytest.mark.parametrize('name', sorted(GOLDEN))
def test_bounds_give_the_published_numbers(name):
    found = bound(name, X1), bound(name, X2), bound(name, X2, 0.1), bound(name, X3)
    assert found == pytest.approx(GOLDEN[name], abs=6e-7)


@pytest.mark.parametrize(
    ('num_harms', 'n', 'expected'), [(0, 100, 0.029513), (3, 100, 0.075711), (4, 100, 0.089196), (100, 100, 1.0)]
)
def test_clopper_pearson_gives_the_published_numbers(num_harms, n, expected):
    costs = np.arange(n) < num_harms
    assert bound('clopper_pearson', costs) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize(('n', 'rate'), [(299, 0.01), (2995, 0.001)])
def test_so_many_prompts_without_a_harm_show_a_rate(n, rate):
    assert bound('clopper_pearson', np.zeros(n)) <= rate < bound('clopper_pearson', np.zeros(n - 1))
    assert bound('clopper_pearson', np.zeros(n)) == pytest.approx(1 - 0.05 ** (1 / n), abs=1e-12)


@given(st.integers(1, 400), st.data(), st.floats(1e-4, 0.5))
@settings(max_examples=60, deadline=None)
def test_clopper_pearson_is_scipy_s_exact_interval(n, data, delta):
    k = data.draw(st.integers(0, n))
    exact = stats.binomtest(k, n, alternative='less').proportion_ci(1 - delta, method='exact').high
    assert bound('clopper_pearson', [1.0] * k + [0.0] * (n - k), delta) == pytest.approx(exact, abs=1e-9)


def test_cvar_gives_the_published_numbers():
    assert cvar.empirical(X2, alpha=0.1) == pytest.approx(0.472772, abs=6e-7)
    assert bound('cvar', X2, alpha=0.1) == pytest.approx(0.931867, abs=6e-7)
    assert cvar.empirical(X1, alpha=0.25) == pytest.approx(0.384, abs=1e-12)
    assert bound('cvar', X1, alpha=0.25) == 1.0  # 20 costs are too few
    assert bound('cvar', X2) == bound('cvar', X2, alpha=0.1)


def test_cvar_s_worst_share_is_the_mean_of_the_highest_costs():
    assert cvar.empirical(X2, alpha=0.1) == pytest.approx(np.sort(X2)[-20:].mean(), abs=1e-12)
    # a share of 2.5 of 5 costs: (9 + 7 + .5 x 4) / 2.5
    assert cvar.empirical([1, 9, 4, 2, 7], alpha=0.5) == pytest.approx(7.2, abs=1e-12)


def test_cvar_of_all_costs_is_anderson_s_bound():
    for delta in (0.01, 0.05, 0.1):
        assert bound('cvar', X2, delta, alpha=1.0) == pytest.approx(bound('anderson', X2, delta), abs=1e-12)


@pytest.mark.parametrize(('delta', 'alpha'), [(0.05, 0.1), (0.05, 0.25), (0.01, 0.5), (0.5, 1.0)])
def test_cvar_says_something_from_the_number_of_costs_that_it_names(delta, alpha):
    n = cvar.num_costs_needed(delta=delta, alpha=alpha)
    assert bound('cvar', np.zeros(n), delta, alpha=alpha) < 1
    if n > 1:
        assert bound('cvar', np.zeros(n - 1), delta, alpha=alpha) == 1


@pytest.mark.parametrize('name', ['betting', 'betting_anytime'])
@pytest.mark.parametrize(('costs', 'delta'), [(X1, 0.05), (X2, 0.05), (X2, 0.1), (X3, 0.05), (np.zeros(50), 0.01)])
def test_betting_s_bound_is_where_the_capital_of_the_definition_comes_to_1_over_delta(name, costs, delta):
    found, anytime = bound(name, costs, delta), name == 'betting_anytime'
    assert capital(costs, found + 1e-9, delta, anytime) >= 1 / delta
    assert capital(costs, found - 1e-9, delta, anytime) < 1 / delta


costs_of_any_law = st.lists(st.floats(0, 1), min_size=2, max_size=40)


@given(costs_of_any_law, st.floats(1e-6, 0.5), st.floats(0, 0.999), st.floats(0, 0.999), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_capital_never_falls_as_the_mean_that_it_bets_against_grows(costs, delta, a, b, anytime):
    low, high = sorted((a, b))
    assert capital(costs, high, delta, anytime) >= capital(costs, low, delta, anytime) * (1 - 1e-12)


@given(costs_of_any_law, st.floats(1e-9, 0.5))
@settings(max_examples=60, deadline=None)
def test_bounds_lie_between_the_mean_and_the_highest_cost_there_can_be(costs, delta):
    """But for betting's: it weighs the costs by its bets, and the anytime one remembers when the mean was lower."""
    for name in ANY_COSTS:
        value = bound(name, costs, delta)
        assert 0 <= value <= 1, name
        assert name.startswith('betting') or value >= np.mean(costs) - 1e-12, name


@given(costs_of_any_law, st.floats(-50, 50), st.floats(0.01, 100), st.floats(1e-4, 0.5))
@settings(max_examples=60, deadline=None)
def test_bounds_move_with_the_unit_of_the_costs(costs, shift, scale, delta):
    for name in ANY_COSTS:
        moved = [shift + scale * cost for cost in costs]
        found = (bound(name, moved, delta, shift, shift + scale) - shift) / scale
        # a cost may move by a rounding error, and the bound with it: the deviation even by its root
        assert found == pytest.approx(bound(name, costs, delta), abs=1e-6), name


@given(costs_of_any_law, st.floats(1e-4, 0.5), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_costs_matters_to_betting_alone(costs, delta, random):
    shuffled = random.sample(costs, len(costs))
    for name in ANY_COSTS:
        if not name.startswith('betting'):
            assert bound(name, shuffled, delta) == pytest.approx(bound(name, costs, delta), abs=1e-12), name


def test_the_order_of_costs_matters_to_betting():
    assert bound('betting', np.sort(X3)) != pytest.approx(bound('betting', np.sort(X3)[::-1]), abs=1e-3)


@given(costs_of_any_law, st.floats(1e-6, 0.5), st.floats(1e-6, 0.5))
@settings(max_examples=60, deadline=None)
def test_a_smaller_delta_gives_no_smaller_bound(costs, a, b):
    small, large = sorted((a, b))
    binary = np.rint(costs)
    for name in set(BOUNDS) - {'betting', 'betting_anytime'}:
        given_costs = binary if name == 'clopper_pearson' else costs
        assert bound(name, given_costs, small) >= bound(name, given_costs, large) - 1e-12, name


def test_a_smaller_delta_gives_no_smaller_bound_by_betting_at_the_levels_in_use():
    studies = np.random.default_rng(0).beta(0.5, 2, (200, 100))
    for module in (betting, betting_anytime):
        tables = [module.upper_bounds(studies, delta=delta, low=0.0, high=1.0) for delta in (1e-4, 0.01, 0.05, 0.1)]
        assert (np.diff(tables, axis=0) < 0).all()


def test_betting_s_bound_may_rise_with_delta_so_that_no_p_value_is_read_off_it():
    """The bets depend on delta: five harms cost as much at either, being capped; less is bet to win it back."""
    costs = [1.0] * 5 + [0.0] * 20
    assert bound('betting_anytime', costs, 0.5) > bound('betting_anytime', costs, 0.2) + 0.05


@given(costs_of_any_law, st.floats(1e-6, 0.5))
@settings(max_examples=100, deadline=None)
def test_anderson_s_bound_is_never_above_hoeffding_s(costs, delta):
    assert bound('anderson', costs, delta) <= bound('hoeffding', costs, delta) + 1e-12


@given(costs_of_any_law, st.floats(1e-4, 0.5), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_the_bound_of_the_worst_share_is_above_it_and_above_that_of_the_mean(costs, delta, alpha):
    found = bound('cvar', costs, delta, alpha=alpha)
    assert found >= cvar.empirical(costs, alpha=alpha) - 1e-12
    assert found >= bound('anderson', costs, delta) - 1e-12


@given(costs_of_any_law, st.floats(0, 1), st.floats(1e-4, 0.5))
@settings(max_examples=60, deadline=None)
def test_one_more_cost_never_raises_the_anytime_bound(costs, another, delta):
    assert bound('betting_anytime', [*costs, another], delta) <= bound('betting_anytime', costs, delta) + 1e-11


@given(st.integers(0, 10_000), st.integers(2, 60), st.floats(1e-4, 0.5))
@settings(max_examples=25, deadline=None)
def test_many_studies_at_once_are_each_on_its_own(seed, n, delta):
    generator = np.random.default_rng(seed)
    studies = np.concatenate([generator.beta(0.5, 2, (4, n)), generator.integers(0, 2, (4, n)), np.ones((1, n))])
    for name in ANY_COSTS:
        together = BOUNDS[name].upper_bounds(studies, delta=delta, low=0.0, high=1.0)
        assert together.shape == (9,)
        assert together == pytest.approx([bound(name, study, delta) for study in studies], abs=1e-11), name


@pytest.mark.parametrize('name', sorted(BOUNDS))
@pytest.mark.parametrize('n', [2, 3, 1000])
@pytest.mark.parametrize('delta', [1e-12, 0.05, 0.5])
def test_costs_that_are_all_alike_raise_no_warning(name, n, delta):
    with np.errstate(all='raise'):
        assert bound(name, np.full(n, 3.0), delta, -2.0, 3.0) == 3.0
        assert -2 <= bound(name, np.full(n, -2.0), delta, -2.0, 3.0) <= 3
        if name != 'clopper_pearson':
            assert 2.999 <= bound(name, np.full(n, 2.999), delta, -2.0, 3.0) <= 3


def test_betting_takes_a_million_costs():
    costs = np.tile(X2, 5000)
    for module in (betting, betting_anytime):
        assert 0.248416 < module.upper_bound(costs, delta=0.05, low=0.0, high=1.0) < 0.2492


def test_costs_that_nearly_reach_the_end_give_a_bound_that_does():
    costs = np.full(500, 1 - 1e-12)
    for name in ANY_COSTS:
        assert 1 - 1e-12 <= bound(name, costs) + 1e-16 <= 1 + 1e-15


def test_an_average_that_a_rounding_error_puts_above_the_range_is_taken():
    costs = np.full(10, np.mean([0.1] * 3))
    assert costs[0] > 0.1
    for name in BOUNDS:
        assert bound(name, costs, 0.05, 0.0, 0.1) == pytest.approx(0.1, abs=1e-15)


@given(st.floats(0.001, 0.999), st.floats(0.05, 9))
@settings(max_examples=60, deadline=None)
def test_a_crossing_is_found_on_its_upper_side_whatever_the_slope(place, power):
    places = np.array([place, place**2, math.sqrt(place)])
    found = _capital.first_crossing(lambda m: np.sign(m - places) * np.abs(m - places) ** power, 3)
    assert (found >= places).all()
    assert found == pytest.approx(places, abs=1e-11)


def test_the_bounds_of_the_folder_are_those_of_the_design():
    assert set(BOUNDS) == {*GOLDEN, 'clopper_pearson', 'cvar'}
    for name, module in BOUNDS.items():
        assert module.__doc__.splitlines()[0].endswith('.'), name
        assert module.ASSUMES
        assert module.TARGET in ('mean', 'cvar')
        assert module.NEEDS_RANGE is (name not in ('mean', 'student_t'))
        assert module.FINITE_SAMPLE is (name not in ('mean', 'student_t'))
        assert bound(name, np.zeros(module.MIN_COSTS)) <= 1


@pytest.mark.parametrize('name', ['mean', 'student_t'])
def test_bounds_without_a_range_need_none(name):
    costs = 100 * X1 - 20
    free = BOUNDS[name].upper_bound(costs, delta=0.05)
    assert free == pytest.approx(100 * GOLDEN[name][0] - 20, abs=1e-4)
    assert bound(name, costs, 0.05, -math.inf, math.inf) == free
    assert bound(name, costs, 0.05, -20, 50) == free
    assert bound(name, [0.0, 1.0], 0.05, 0, 1) <= 1


@pytest.mark.parametrize('name', sorted(BOUNDS))
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'costs': [[0.0, 1.0]]}, r'costs: .*1-d array; found the shape \(1, 2\)'),
        ({'costs': 1.0}, r'costs: .*1-d array; found the shape \(\)'),
        ({'costs': []}, r'costs: at least [12] are needed; found 0'),
        ({'costs': [0.0, 1.0, math.nan]}, r'costs: number 3 \(nan\) is not a finite number'),
        ({'costs': [0.0, -math.inf]}, r'costs: number 2 \(-inf\) is not a finite number'),
        ({'costs': [0.0, 1.0, 1.5]}, r'costs: number 3 \(1.5\) is outside \[low, high\] = \[0.0, 1.0\]'),
        ({'costs': [-1e-6, 1.0]}, r'costs: number 1 \(-1e-06\) is outside'),
        ({'costs': ['unsafe', 'safe']}, r'costs: expected numbers; .*unsafe'),
        ({'delta': 0.0}, r'delta: expected a number between 0 and 1, both excluded; found 0.0'),
        ({'delta': 1.0}, r'delta: .*found 1.0'),
        ({'delta': math.nan}, r'delta: .*found nan'),
        ({'low': 1.0}, r'low, high: expected low below high; found 1.0 and 1.0'),
        ({'high': math.nan}, r'low, high: .*found 0.0 and nan'),
    ],
)
def test_mistakes_are_told_in_a_line(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        bound(name, **{'costs': [0.0, 1.0, 0.0], **options})
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['student_t', 'empirical_bernstein'])
def test_a_spread_needs_two_costs(name):
    with pytest.raises(UserError, match='costs: at least 2 are needed; found 1'):
        bound(name, [0.5])


@pytest.mark.parametrize('name', sorted(set(BOUNDS) - {'mean', 'student_t'}))
def test_bounds_by_the_range_need_one(name):
    with pytest.raises(UserError, match=r'low, high: this bound needs a finite range of the costs; found 0\.0 and inf'):
        bound(name, [0.0, 1.0], high=math.inf)


@pytest.mark.parametrize('name', ['anderson', 'cvar'])
def test_bounds_by_a_band_hold_for_delta_up_to_a_half(name):
    assert bound(name, X1, 0.5) < 1 or name == 'cvar'
    with pytest.raises(UserError, match=r'delta: this bound holds for delta up to 0.5 alone; found 0.6'):
        bound(name, X1, 0.6)


def test_clopper_pearson_takes_two_values_alone():
    assert clopper_pearson.upper_bound([-1, 1, -1], delta=0.05, low=-1, high=1) < 1
    with pytest.raises(UserError, match=r'costs: clopper_pearson takes -1 and 1 alone; found 0.5; betting takes any'):
        clopper_pearson.upper_bound([-1, 0.5, 1], delta=0.05, low=-1, high=1)


def test_cvar_takes_a_share():
    for alpha in (0.0, 1.5, math.nan):
        with pytest.raises(UserError, match=r'alpha: expected a share of the costs in \(0, 1\]; found'):
            cvar.upper_bound(X1, delta=0.05, low=0, high=1, alpha=alpha)


def test_many_studies_are_a_table():
    with pytest.raises(UserError, match=r'costs: expected a row a study, a 2-d array; found the shape \(20,\)'):
        hoeffding.upper_bounds(X1, delta=0.05, low=0, high=1)
    assert anderson.upper_bounds(np.zeros((0, 5)), delta=0.05, low=0, high=1).shape == (0,)
    assert betting.upper_bounds(np.zeros((0, 5)), delta=0.05, low=0, high=1).shape == (0,)


def test_other_numbers_than_floats_are_costs_too():
    expected = bound('betting', [0.0, 1.0, 0.0])
    for costs in ((0, 1, 0), [False, True, False], np.array([0, 1, 0], np.int8), np.array([0, 1, 0], np.float32)):
        assert bound('betting', costs) == expected
