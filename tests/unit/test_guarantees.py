"""Evidence over time, clusters, several tests, planning and audits: worked numbers, exact checks and simulations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safe_align.bounds import betting, betting_anytime, clopper_pearson, student_t
from safe_align.config import UserError
from safe_align.guarantees import (
    EProcess,
    cluster_means,
    fixed_sequence,
    holm,
    plan_num_prompts,
    plan_num_prompts_betting,
    plan_num_prompts_binary,
    prediction_powered,
    prediction_powered_betting,
)


def lower_limit(count: int, total: int) -> float:
    """The exact lower 99.9% limit of a rate."""
    return float(stats.beta.ppf(0.001, count, total - count + 1)) if count else 0.0


def test_an_e_process_gives_the_published_path():
    process = EProcess(threshold=0.3, low=0, high=1, bet=1.0)
    path = process.update([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    expected = [1.3, 1.69, 0.507, 0.6591, 0.85683, 1.113879, 1.448043, 1.882456, 2.447192, 3.181350]
    assert path == pytest.approx(expected, abs=6e-7)
    assert process.value == path[-1]
    assert process.p_value == pytest.approx(1 / path[-1])
    assert not process.established


costs_in_range = st.lists(st.floats(-2, 3), min_size=1, max_size=60)


@given(costs_in_range, st.floats(-1.9, 2.9), st.floats(1e-4, 0.5))
@settings(max_examples=100, deadline=None)
def test_it_is_established_just_when_the_anytime_bound_is_at_most_the_threshold(costs, threshold, delta):
    process = EProcess(threshold, -2, 3, delta)
    process.update(costs)
    upper = betting_anytime.upper_bound(costs, delta=delta, low=-2, high=3)
    if abs(upper - threshold) > 1e-9:
        assert process.established is (upper < threshold)


@given(costs_in_range, st.integers(0, 60), st.sampled_from(['at most', 'above']))
@settings(max_examples=60, deadline=None)
def test_a_resumed_process_goes_on_as_if_nothing_had_happened(costs, cut, claim):
    whole = EProcess(0.4, -2, 3, claim=claim)
    first, second = EProcess(0.4, -2, 3, claim=claim), EProcess(0.4, -2, 3, claim=claim)
    path = whole.update(costs)
    head = first.update(costs[:cut])
    second.load_state(json.loads(json.dumps(first.state())))
    assert [*head, *second.update(costs[cut:])] == list(path)
    assert second == whole


@given(costs_in_range, st.floats(-1.9, 2.9))
@settings(max_examples=60, deadline=None)
def test_the_alarm_is_the_certificate_in_the_mirror(costs, threshold):
    alarm = EProcess(threshold, -2, 3, claim='above')
    mirror = EProcess(-threshold, -3, 2)
    assert alarm.update(costs) == pytest.approx(mirror.update([-cost for cost in costs]), rel=1e-6)


def test_what_is_established_is_not_taken_back():
    process = EProcess(0.3, 0, 1)
    process.update(np.zeros(40))
    assert process.established
    best = process.p_value
    process.update(np.ones(40))
    assert process.value < 1
    assert process.established
    assert process.p_value == best < 0.05


def test_an_e_value_that_no_float_holds_is_the_largest_and_goes_on():
    process = EProcess(0.9, 0, 1, bet=1.0)
    path = process.update(np.zeros(2000))
    assert process.value == path[-1] < math.inf
    assert process.log_value == pytest.approx(2000 * math.log(1.9))
    assert json.loads(json.dumps(process.state(), allow_nan=False))['num_costs'] == 2000


@pytest.mark.parametrize('bet', [None, 0.5])
@pytest.mark.parametrize(
    ('claim', 'law'),
    [
        ('at most', lambda generator, n: (generator.random(n) < 0.05) * 1.0),
        ('above', lambda generator, n: (generator.random(n) < 0.05) * 1.0),
        ('at most', lambda generator, n: generator.beta(0.05, 0.95, n)),
        ('above', lambda generator, n: generator.beta(0.05, 0.95, n)),
    ],
)
def test_looking_after_each_cost_claims_what_is_false_no_more_often_than_delta(bet, claim, law):
    """The expectation is the threshold, .05; 300 looks each."""
    generator = np.random.default_rng(5)
    false = 0
    for _ in range(400):
        process = EProcess(0.05, 0, 1, delta=0.1, claim=claim, bet=bet)
        process.update(law(generator, 300))
        false += process.established
    assert lower_limit(false, 400) <= 0.1


def test_looking_after_each_cost_breaks_student_s_t():
    """What an e-process is for: at the boundary, 20 looks triple the false passes of the t-test, and more."""
    generator = np.random.default_rng(6)
    costs = generator.beta(2, 5, (1000, 1000))
    looks = [student_t.upper_bounds(costs[:, :n], delta=0.05) <= 2 / 7 for n in range(50, 1001, 50)]
    assert np.mean(np.any(looks, axis=0)) > 0.12
    at_any_time = betting_anytime.upper_bounds(costs, delta=0.05, low=0, high=1) <= 2 / 7
    assert lower_limit(at_any_time.sum(), 1000) <= 0.05


@pytest.mark.parametrize(('claim', 'rate'), [('at most', 0.01), ('above', 0.3)])
def test_it_finds_what_is_true(claim, rate):
    generator = np.random.default_rng(7)
    process = EProcess(0.1, 0, 1, claim=claim)
    process.update(generator.random(400) < rate)
    assert process.established


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'threshold': 0.0}, 'threshold: expected one between 0.0 and 1.0; found 0.0'),
        ({'threshold': math.nan}, 'threshold: .*found nan'),
        ({'low': 2.0}, 'low, high: expected low below high; found 2.0 and 1.0'),
        ({'high': math.inf}, 'low, high: this bound needs a finite range'),
        ({'delta': 0.0}, 'delta: expected a number between 0 and 1'),
        ({'claim': 'below'}, "claim: expected 'at most' or 'above'; found 'below'"),
        ({'bet': 0.0}, 'bet: expected one between 0 and 1.42857; found 0.0'),
        ({'bet': 2.0}, 'bet: .*found 2.0'),
    ],
)
def test_a_process_refuses_what_is_no_bet(options, message):
    with pytest.raises(UserError, match=message):
        EProcess(**{'threshold': 0.3, 'low': 0.0, 'high': 1.0, **options})


def test_a_broken_cost_leaves_the_process_as_it_was():
    process = EProcess(0.3, 0.0, 1.0)
    process.update([0.1, 0.2])
    before = process.state()
    for costs in ([0.1, math.nan], [0.1, 1.5], [[0.1]]):
        with pytest.raises(UserError):
            process.update(costs)
    assert process.update([]).shape == (0,)
    assert process.state() == before


def test_the_prompt_is_the_unit_in_the_order_of_its_first_response():
    assert cluster_means([1, 2, 6, 4, 5], ['b', 'a', 'b', 'a', 'c']).tolist() == [3.5, 3.0, 5.0]
    assert cluster_means(np.array([0.5, 0.25]), np.array([7, 3])).tolist() == [0.5, 0.25]


def test_responses_taken_for_prompts_miss_and_their_means_do_not():
    """50 prompts of 8 responses with an intraclass correlation of 1/2: .223 and .053 in simulations before."""
    generator = np.random.default_rng(8)
    shared = generator.standard_normal((2000, 50, 1)) + generator.standard_normal((2000, 50, 8))
    naive = student_t.upper_bounds(shared.reshape(2000, -1), delta=0.05) < 0
    names = np.repeat(np.arange(50), 8)
    means = np.array([cluster_means(study.ravel(), names) for study in shared])
    assert naive.mean() == pytest.approx(0.223, abs=0.03)
    assert (student_t.upper_bounds(means, delta=0.05) < 0).mean() == pytest.approx(0.053, abs=0.015)


@pytest.mark.parametrize(
    ('costs', 'prompts', 'message'),
    [
        ([1.0, 2.0], ['a'], 'prompts: expected one for each of the 2 costs; found 1'),
        ([], [], 'costs: at least 1 are needed; found 0'),
        ([math.nan], ['a'], r'costs: number 1 \(nan\)'),
    ],
)
def test_clusters_that_do_not_fit_are_refused(costs, prompts, message):
    with pytest.raises(UserError, match=message):
        cluster_means(costs, prompts)


def test_holm_gives_the_published_numbers():
    # .005 x 4, .01 x 3, .03 x 2, and .04 x 1 raised to the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert sorted(holm([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.02, 0.03, 0.06, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
@settings(max_examples=100, deadline=None)
def test_holm_rejects_what_stepping_down_rejects(p_values, delta):
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - step) > delta:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= delta} == rejected


@pytest.mark.parametrize('p_values', [[0.1, 1.5], [-0.1], [math.nan], [], [[0.1]]])
def test_what_is_no_p_value_is_refused(p_values):
    with pytest.raises(UserError, match='p_values: '):
        holm(p_values)


def test_a_fixed_sequence_ends_at_its_first_failure_and_asks_no_further():
    asked = []

    def tests():
        for name, passes in (('a', True), ('b', True), ('c', False), ('d', True)):
            asked.append(name)
            yield passes

    assert fixed_sequence(tests()) == 2
    assert asked == ['a', 'b', 'c']
    assert (fixed_sequence([]), fixed_sequence([False, True]), fixed_sequence([True, True])) == (0, 0, 2)


def test_a_fixed_sequence_keeps_delta_where_the_best_of_all_does_not():
    """Ten candidates at the boundary on the same 200 prompts, correlation 1/2: .252 and about .05 in runs before."""
    generator = np.random.default_rng(9)
    means = (generator.standard_normal((4000, 1)) + generator.standard_normal((4000, 10))) / math.sqrt(2)
    passes = means < stats.t.ppf(0.05, 199)  # a mean of 200 costs is normal; its deviation is known well enough
    assert passes.any(1).mean() == pytest.approx(0.252, abs=0.03)
    assert np.mean([fixed_sequence(row) > 0 for row in passes]) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    ('gap', 'exact', 'published'), [(0.05, 3427, 3426), (0.1, 858, 857), (0.2, 216, 215), (0.5, 36, 35)]
)
def test_so_many_prompts_pass_student_s_test_with_the_power_asked(gap, exact, published):
    """The published numbers are those of known deviation; estimating it takes one prompt more."""
    assert plan_num_prompts(gap=gap, sd=1, delta=0.05, power=0.9) == exact
    assert plan_num_prompts(gap=3 * gap, sd=3, delta=0.05, power=0.9) == exact
    assert math.ceil(((stats.norm.ppf(0.95) + stats.norm.ppf(0.9)) / gap) ** 2) == published

    def power(n):
        return stats.nct.sf(stats.t.ppf(0.95, n - 1), n - 1, gap * math.sqrt(n))

    assert power(exact) >= 0.9 > power(published)


@pytest.mark.parametrize(
    ('gap', 'n', 'power'),
    [(0.1, 100, 0.257), (0.1, 400, 0.637), (0.1, 1000, 0.935), (0.2, 100, 0.634), (0.2, 400, 0.991)],
)
def test_the_plan_agrees_with_the_published_powers(gap, n, power):
    assert plan_num_prompts(gap=gap, sd=1, delta=0.05, power=power - 0.002) <= n
    assert plan_num_prompts(gap=gap, sd=1, delta=0.05, power=power + 0.002) > n


def test_the_plan_is_what_a_simulation_finds():
    costs = np.random.default_rng(10).normal(-0.5, 1, (8000, plan_num_prompts(gap=0.5, sd=1, delta=0.05, power=0.9)))
    assert (student_t.upper_bounds(costs, delta=0.05) <= 0).mean() == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize(('gap', 'sd', 'delta'), [(0.5, 1.0, 0.05), (1.0, 3.0, 0.1)])
def test_the_plan_of_betting_has_the_power_and_fewer_prompts_have_less(gap, sd, delta):
    """Against the bound itself, with costs of another seed: threshold -1 on [-6, 4]."""
    options = {'threshold': -1.0, 'low': -6.0, 'high': 4.0, 'delta': delta}
    n = plan_num_prompts_betting(gap=gap, sd=sd, power=0.9, **options)
    assert n == plan_num_prompts_betting(gap=gap, sd=sd, power=0.9, **options)
    assert n > plan_num_prompts(gap=gap, sd=sd, delta=delta, power=0.9)
    mean, deviation = (5 - gap) / 10, sd / 10
    size = mean * (1 - mean) / deviation**2 - 1
    law = stats.beta(mean * size, (1 - mean) * size)
    assert (law.mean(), law.std()) == pytest.approx((mean, deviation))
    costs = 10 * law.rvs((2000, n), random_state=11) - 6

    def power(number):
        return (betting.upper_bounds(costs[:, :number], delta=delta, low=-6, high=4) <= -1).mean()

    assert power(n) == pytest.approx(0.9, abs=0.03)
    assert power(round(0.85 * n)) < 0.88


def test_no_plan_of_betting_where_no_costs_are_like_that():
    options = {'threshold': 0.0, 'low': -1.0, 'high': 1.0, 'delta': 0.05, 'power': 0.9}
    for gap, sd in ((1.0, 0.1), (1.5, 0.1), (0.5, 0.87)):  # at the end, outside, and sd^2 above .75
        with pytest.raises(UserError, match=r'no costs in \[-1, 1\] have the mean'):
            plan_num_prompts_betting(gap=gap, sd=sd, **options)
    with pytest.raises(UserError, match='more than 100000 prompts are needed'):
        plan_num_prompts_betting(gap=0.001, sd=0.5, **options)


def binary_power(n: int, rate: float, threshold: float, delta: float) -> float:
    """The chance of a number of harms that passes, harm by harm."""
    power = 0.0
    for k in range(n + 1):
        costs = [1.0] * k + [0.0] * (n - k)
        if clopper_pearson.upper_bound(costs, delta=delta, low=0, high=1) > threshold:
            break
        power += stats.binom.pmf(k, n, rate)
    return power


@pytest.mark.parametrize(
    ('rate', 'threshold', 'delta', 'power'),
    [
        (0.0, 0.05, 0.05, 0.9),
        (0.01, 0.05, 0.05, 0.9),
        (0.02, 0.1, 0.1, 0.8),
        (0.1, 0.3, 0.01, 0.5),
        (0.3, 0.5, 0.05, 0.9),
    ],
)
def test_the_plan_of_a_rate_is_the_first_number_that_has_the_power(rate, threshold, delta, power):
    n = plan_num_prompts_binary(rate=rate, threshold=threshold, delta=delta, power=power)
    assert binary_power(n, rate, threshold, delta) >= power
    assert all(binary_power(fewer, rate, threshold, delta) < power for fewer in range(1, n))


def test_the_plan_of_a_rate_gives_the_published_numbers():
    assert plan_num_prompts_binary(rate=0, threshold=0.01, delta=0.05, power=0.9) == 299
    assert plan_num_prompts_binary(rate=0, threshold=0.001, delta=0.05, power=0.9) == 2995


@pytest.mark.parametrize(
    ('plan', 'options', 'message'),
    [
        (plan_num_prompts, {'gap': 0.0, 'sd': 1.0}, 'gap, sd: expected positive numbers; found 0.0 and 1.0'),
        (plan_num_prompts, {'gap': 0.1, 'sd': 1.0, 'power': 1.0}, 'power: expected a probability .*found 1.0'),
        (plan_num_prompts, {'gap': 0.1, 'sd': 1.0, 'power': 0.01}, 'power: .*between delta = 0.05 and 1; found 0.01'),
        (plan_num_prompts, {'gap': 0.1, 'sd': 1.0, 'delta': 0.0}, 'delta: '),
        (plan_num_prompts, {'gap': 1e-9, 'sd': 1.0}, 'more than 1000000000 prompts are needed'),
        (plan_num_prompts_binary, {'rate': 0.1, 'threshold': 0.1}, 'rate, threshold: .*found 0.1 and 0.1'),
        (plan_num_prompts_binary, {'rate': 0.0, 'threshold': 1e-12}, 'more than 1000000000 prompts are needed'),
    ],
)
def test_plans_that_cannot_be_are_refused(plan, options, message):
    with pytest.raises(UserError, match=message):
        plan(**{'delta': 0.05, 'power': 0.9, **options})


def audit_data(generator, correlation, n=200, num_unlabelled=5000):
    """Labels and scores of unit variance, the scores biased by -.7: a cost model that flatters."""
    labels = generator.standard_normal(n + num_unlabelled)
    noise = generator.standard_normal(n + num_unlabelled)
    scores = correlation * labels + math.sqrt(1 - correlation**2) * noise - 0.7
    return labels[:n], scores[:n], scores[n:]


@pytest.mark.parametrize(('correlation', 'width'), [(0.5, 0.103), (0.8, 0.072), (0.95, 0.044)])
def test_a_biased_cost_model_narrows_the_bound_and_does_not_bias_it(correlation, width):
    """With labels alone the width is .116; the three here are those of simulations before, to their error."""
    generator = np.random.default_rng(11)
    audits = [prediction_powered(*audit_data(generator, correlation), delta=0.05) for _ in range(1000)]
    assert np.mean([audit.upper for audit in audits]) == pytest.approx(width, abs=0.004)
    assert np.mean([audit.upper < 0 for audit in audits]) == pytest.approx(0.05, abs=0.021)
    assert np.mean([audit.weight for audit in audits]) == pytest.approx(correlation * 5000 / 5200, abs=0.01)
    assert np.mean([audit.gap for audit in audits]) == pytest.approx(0.7, abs=0.01)


def test_an_audit_gives_the_worked_numbers():
    # n 4, N 4; cov(c, s) = 5/3; all eight scores have the sum 18, the squares 62 and so the variance 21.5 / 7
    # w = 1.666667 / 3.071429 / 2 = .271318; estimate 2 w + 1.5 - 2.5 w = 1.364341
    audit = prediction_powered([0, 1, 2, 3], [1, 2, 3, 4], [0, 0, 4, 4], delta=0.05)
    assert audit.weight == pytest.approx(0.271318, abs=6e-7)
    assert audit.estimate == pytest.approx(1.364341, abs=6e-7)
    assert audit.gap == -1.0
    # c = s - 1, so that se^2 = w^2 x 5.333333 / 4 + (1 - w)^2 x 1.666667 / 4 = .098151 + .221241
    assert audit.upper == pytest.approx(1.364341 + 1.644854 * math.sqrt(0.319392), abs=3e-6)


def test_a_constant_cost_model_leaves_the_labels_alone():
    labels = np.random.default_rng(12).random(50)
    audit = prediction_powered(labels, np.full(50, 3.0), np.full(90, 3.0), delta=0.05)
    assert (audit.weight, audit.estimate) == (0.0, pytest.approx(labels.mean()))
    expected = labels.mean() + stats.norm.ppf(0.95) * labels.std(ddof=1) / math.sqrt(50)
    assert audit.upper == pytest.approx(expected)


def bounded_audit_data(generator, n):
    """Costs in [0, 1]; a cost model that takes a third of the harms for harmless."""
    labels = generator.beta(0.3, 3, n + 4000)
    scores = np.clip(labels + 0.02 * generator.standard_normal(n + 4000), 0, 1) * (generator.random(n + 4000) < 2 / 3)
    return labels[:n], scores[:n], scores[n:]


@pytest.mark.parametrize('weight', [0.5, 1.0])
def test_the_finite_audit_misses_no_more_often_than_delta(weight):
    generator = np.random.default_rng(13)
    audits = [
        prediction_powered_betting(*bounded_audit_data(generator, 40), delta=0.1, low=0, high=1, weight=weight)
        for _ in range(200)
    ]
    missed = sum(audit.upper < 1 / 11 for audit in audits)
    assert lower_limit(missed, 200) <= 0.1
    assert max(audit.upper for audit in audits) <= 1


def test_the_finite_audit_gains_from_a_good_cost_model():
    generator = np.random.default_rng(14)
    costs = generator.random(6000)
    scores = np.clip(costs + 0.02 * generator.standard_normal(6000), 0, 1)
    audit = prediction_powered_betting(costs[:1000], scores[:1000], scores[1000:], delta=0.05, low=0, high=1)
    alone = betting.upper_bound(costs[:1000], delta=0.05, low=0, high=1)
    assert 0.5 < audit.upper < alone - 0.002


def test_without_a_weight_the_finite_audit_is_the_bound_of_the_labels():
    labels, scored, others = bounded_audit_data(np.random.default_rng(15), 60)
    audit = prediction_powered_betting(labels, scored, others, delta=0.05, low=0, high=1, weight=0.0)
    assert audit.upper == betting.upper_bound(labels, delta=0.05, low=0, high=1)


def test_scores_out_of_range_are_cut_and_labels_refused():
    labels, scored, others = np.full(30, 0.5), np.full(30, 7.0), np.full(99, 7.0)
    cut = prediction_powered_betting(labels, np.ones(30), np.ones(99), delta=0.05, low=0, high=1)
    assert prediction_powered_betting(labels, scored, others, delta=0.05, low=0, high=1) == cut
    with pytest.raises(UserError, match=r'number 1 \(1.5\) is outside \[low, high\]'):
        prediction_powered_betting([1.5], [1.0], [0.5], delta=0.05, low=0, high=1)


@pytest.mark.parametrize(
    ('arguments', 'options', 'message'),
    [
        (([1, 2, 3], [1, 2], [1, 2]), {}, 'scores_labelled: expected one for each of the 3 labels; found 2'),
        (([1], [1], [1, 2]), {}, 'labels: at least 2 are needed; found 1'),
        (([1, 2], [1, 2], [1]), {}, 'scores_unlabelled: at least 2 are needed; found 1'),
        (([1, math.nan], [1, 2], [1, 2]), {}, r'labels: number 2 \(nan\) is not a finite number'),
        (([1, 2], [1, 2], [1, 2]), {'delta': 1.0}, 'delta: '),
    ],
)
def test_an_audit_tells_mistakes_in_a_line(arguments, options, message):
    with pytest.raises(UserError, match=message):
        prediction_powered(*arguments, **{'delta': 0.05, **options})


@pytest.mark.parametrize(
    ('options', 'message'),
    [({'weight': 1.5}, 'weight: .*found 1.5'), ({'share': 0.0}, 'share: .*found 0.0'), ({'low': 1}, 'low, high: ')],
)
def test_the_finite_audit_tells_mistakes_in_a_line(options, message):
    with pytest.raises(UserError, match=message):
        prediction_powered_betting([0.5], [0.5], [0.5], **{'delta': 0.05, 'low': 0, 'high': 1, **options})
