"""What is said of scores of held-out pairs: numbers worked by hand, and an independent AUC."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar

from safe_align.evaluate.agreement import auc, render, responses, summarise
from safe_align.evaluate.calibration import calibration, temperature
from safe_align.evaluate.statistics import clustered_rate, share

GIVEN = {'model': 'rm', 'notes': []}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def pair(prompt: str, chosen: float, rejected: float, **more) -> dict:
    return {'prompt': prompt, 'chosen_reward': chosen, 'rejected_reward': rejected,
            'chosen': f'{prompt}{chosen}', 'rejected': f'{prompt}{rejected}', **more}  # fmt: skip


def costs(prompt: str, safer: tuple, unsafer: tuple) -> dict:
    """Of two responses (name, cost, whether it is safe)."""
    return {
        'prompt': prompt, 'safer': safer[0], 'safer_cost': safer[1], 'is_safer_safe': safer[2],
        'unsafer': unsafer[0], 'unsafer_cost': unsafer[1], 'is_unsafer_safe': unsafer[2],
    }  # fmt: skip


PAIRS = [pair('p', 2, 0), pair('p', 1, 1), pair('q', 0, 1), pair('r', 3, 0)]


def test_accuracy_is_of_pairs_and_its_interval_of_prompts():
    found = summarise(PAIRS, 'reward')
    assert (found['num_pairs'], found['num_prompts'], found['num_equal']) == (4, 3, 1)
    # right: 1 and 1/2 of p, 0 of q, 1 of r
    assert tuple(found['accuracy'].values()) == clustered_rate([1.5, 0, 1], [2, 1, 1])
    assert found['accuracy']['value'] == 0.625
    assert found['chosen_reward']['value'] == 1.5
    assert found['rejected_reward']['value'] == 0.5
    assert 'sign' not in found


def test_calibration_is_that_worked_by_hand():
    found = summarise(PAIRS, 'reward')['calibration']
    # differences 2, 0, -1, 3: -log sigma .126928, .693147, 1.313262, .048587
    assert found['nll']['value'] == pytest.approx(0.545481, abs=1e-6)
    # 1 - sigma: .119203, .5, .731059, .047426
    assert found['brier']['value'] == pytest.approx((0.014209 + 0.25 + 0.534447 + 0.002249) / 4, abs=1e-6)
    # one bin: said (.880797 + .5 + .731059 + .952574) / 4 = .766108, was so 2.5 / 4
    assert found['overconfidence']['value'] == pytest.approx(0.141108, abs=1e-6)
    assert found['expected_calibration_error'] == pytest.approx(0.141108, abs=1e-6)
    # deviation sqrt(.104994 + .25 + .196612 + .045177) / 4 = .193128, times sqrt(2 / pi)
    assert found['expected_by_chance'] == pytest.approx(0.154094, abs=1e-5)
    (one,) = found['bins']
    assert (one['count'], one['said']) == (4, pytest.approx(0.766108, abs=1e-6))
    assert one['was_so']['value'] == 0.625


def test_equal_costs_count_half_and_a_cost_of_0_says_safe():
    rows = [
        costs('p', ('a', -1.0, True), ('b', 0.0, False)),  # b is said to be safe, and is not
        costs('p', ('a', -1.0, True), ('c', 2.0, False)),  # a again, which counts once
        costs('q', ('d', 0.0, True), ('e', 0.0, None)),  # e has no label
        costs('q', ('f', 1.0, False), ('g', 0.5, False)),  # both right by sign, and ranked wrong
    ]
    found = summarise(rows, 'cost')
    assert found['accuracy']['value'] == 0.625  # 1, 1, 1/2, 0
    sign = found['sign']
    assert (sign['num_responses'], sign['num_safe']) == (6, 2)
    assert sign['accuracy']['value'] == pytest.approx(5 / 6)
    assert sign['accuracy_safe']['value'] == 1
    assert sign['accuracy_safe']['low'] == share(2, 2).low
    assert sign['accuracy_unsafe']['value'] == 0.75
    # unsafe 0, 2, 1, .5 above safe -1, 0: 7 of 8, and one equal
    assert sign['auc']['value'] == pytest.approx(7.5 / 8)
    assert sorted(name for name, *_ in responses(rows)) == ['p'] * 3 + ['q'] * 3
    assert '0.833' in render({**GIVEN, **found}, 'cost')


def test_costs_without_labels_have_no_signs():
    found = summarise([costs('p', ('a', 0.0, None), ('b', 1.0, None))], 'cost')
    assert 'sign' not in found
    assert 'AUC' not in render({**GIVEN, **found}, 'cost')


def test_data_sets_and_categories_stand_apart_where_there_are_several():
    rows = [pair('p', 1, 0, dataset='x', category='b'), pair('q', 0, 1, dataset='y', category='a'),
            pair('r', 1, 0, dataset='y')]  # fmt: skip
    found = summarise(rows, 'reward')
    assert [(one['dataset'], one['num_pairs'], one['accuracy']['value']) for one in found['datasets']] == [
        ('x', 1, 1.0), ('y', 2, 0.5),
    ]  # fmt: skip
    assert [(one['category'], one['num_pairs']) for one in found['categories']] == [('a', 1), ('b', 1)]
    text = render({**GIVEN, **found, 'notes': ['seen before']}, 'reward')
    assert 'seen before' in text
    assert [line.split()[0] for line in text.splitlines()[5:10]] == ['all', 'x', 'y', 'a', 'b']
    assert 'datasets' not in summarise(rows[1:], 'reward')


@given(
    st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
@settings(max_examples=50, deadline=None)
def test_auc_is_that_of_the_rank_test(rows):
    scores, positive = map(np.array, zip(*rows, strict=True))
    expected = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic / positive.sum() / (~positive).sum()
    value, low, high = auc(scores, positive, np.arange(len(rows)) // 2)
    assert value == pytest.approx(expected)
    assert math.isnan(low) or -1e-12 <= low <= value <= high <= 1 + 1e-12


def test_auc_has_the_variance_of_delong_s_components_where_each_response_has_a_prompt():
    rng = np.random.default_rng(0)
    positive = np.arange(60) < 25
    scores = rng.normal(size=60) + positive
    above = (scores[positive][:, None] > scores[~positive]).astype(float)
    variance = above.mean(1).var(ddof=1) / 25 + above.mean(0).var(ddof=1) / 35
    value, low, high = auc(scores, positive, np.arange(60))
    games, quantile = value * (1 - value) / variance, stats.t.ppf(0.975, 59)
    half = math.sqrt(value * (1 - value) / games + quantile**2 / games**2 / 4) * quantile / (1 + quantile**2 / games)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)  # which divides by 25 and 35 less 1, not by 60 less 1
    assert math.isnan(auc(scores, positive | True, np.arange(60)).value)


def test_the_temperature_is_that_of_an_optimiser_and_undoes_a_scale():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000)
    outcomes = (rng.random(4000) < 1 / (1 + np.exp(-truth))).astype(float)
    found = temperature(3 * truth, outcomes, np.arange(4000))
    best = minimize_scalar(
        lambda t: (np.logaddexp(0, 3 * truth / t) - outcomes * 3 * truth / t).mean(),
        bounds=(0.5, 10), method='bounded', options={'xatol': 1e-9},
    )  # fmt: skip
    assert found.value == pytest.approx(best.x, rel=1e-5)
    assert found.low < 3 < found.high
    assert temperature(truth, outcomes, np.arange(4000)).value == pytest.approx(found.value / 3, rel=1e-8)


@pytest.mark.parametrize('outcomes', [[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
def test_without_a_mistake_or_without_skill_there_is_no_temperature(outcomes):
    found = calibration(np.array([1.0, 2.0, 0.5]), np.array(outcomes), np.arange(3))
    assert found['temperature'] == {'value': None, 'low': None, 'high': None}


def test_scores_that_hardly_rank_have_a_temperature_that_may_be_anything():
    logits, outcomes = np.full(1001, 1.0), np.array([1.0] * 501 + [0.0] * 500)
    value, low, high = temperature(logits, outcomes, np.arange(1001))
    assert value == pytest.approx(1 / math.log(501 / 500), rel=1e-6)
    assert 0 < low < 40
    assert high == pytest.approx(1000 * value)


def test_equal_scores_are_in_one_bin_and_bins_hold_about_as_many():
    logits = np.repeat([0.0, 1.0, 2.0], [60, 30, 110])
    found = calibration(logits, np.ones(200), np.arange(200))
    assert [one['count'] for one in found['bins']] == [60, 30, 110]
    spread = calibration(np.linspace(0, 4, 1000), np.ones(1000), np.arange(1000))
    assert [one['count'] for one in spread['bins']] == [100] * 10


def test_a_calibrated_model_is_about_as_far_off_as_chance_has_it():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(40, 400))
    outcomes = (rng.random((40, 400)) < 1 / (1 + np.exp(-logits))).astype(float)
    found = [calibration(*row, np.arange(400)) for row in zip(logits, outcomes, strict=True)]
    error, chance = (np.mean([one[name] for one in found])
                     for name in ('expected_calibration_error', 'expected_by_chance'))  # fmt: skip
    assert error == pytest.approx(chance, rel=0.1)
