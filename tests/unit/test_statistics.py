"""Intervals and win rates against published numbers."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safe_align.evaluate.statistics import (
    Estimate,
    clustered_rate,
    mean,
    rate,
    score_rate,
    share,
    sign_test,
    wilson,
    win_rate,
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def test_a_share_has_wilson_s_interval():
    assert share(60, 100) == pytest.approx((0.6, 0.502003, 0.690599), abs=1e-6)
    # 40 of 60 discordant pairs
    assert share(40, 60) == pytest.approx((2 / 3, 0.540569, 0.772707), abs=1e-6)


@pytest.mark.parametrize('count', [0, 7])
def test_a_share_of_none_or_all_stays_within_0_and_1(count):
    value, low, high = share(count, 7)
    # Wilson at 0 of n: [0, z^2 / (n + z^2)] with z = 1.959964: 3.841459 / 10.841459
    assert (low, high) == pytest.approx((0.0, 0.354331) if count == 0 else (1 - 0.354331, 1.0), abs=1e-6)
    assert value == count / 7


def test_a_win_rate_counts_ties_half():
    # 55 wins, 15 ties, 30 losses: mean .625, deviation .4434, t .975 with 99 degrees 1.984217
    blue = [1.0] * 55 + [0.0] * 15 + [-1.0] * 30
    assert mean([(one + 1) / 2 for one in blue]) == pytest.approx((0.625, 0.536516, 0.713484), abs=1e-6)
    assert win_rate(blue, [0.0] * 100) == score_rate([1.0] * 55 + [0.5] * 15 + [0.0] * 30)
    assert rate([True] * 60 + [False] * 40) == share(60, 100)


def test_a_mean_has_student_s_interval():
    # 1, 2, 3, 4: mean 2.5, deviation 1.290994, t .975 with 3 degrees 3.182446: half width 2.054260
    assert mean([1, 2, 3, 4]) == pytest.approx((2.5, 0.445740, 4.554260), abs=1e-6)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_interval_of_a_mean_is_scipy_s(values):
    expected = np.mean(values), *stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values) or 1e-300)
    assert mean(values) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_too_few_values_have_no_interval_and_none_have_no_mean():
    assert mean([3.0])[0] == 3.0
    for estimate in (mean([3.0])[1:], mean([]), share(0, 0), win_rate([], [])):
        assert all(map(math.isnan, estimate))


def test_an_estimate_reads_as_value_and_interval():
    assert str(Estimate(0.625, 0.5364, 0.7136)) == '0.625 [0.536, 0.714]'
    assert str(mean([3.0])) == '3.000'
    assert str(mean([])) == 'n/a'


def test_scores_without_ties_have_wilson_s_interval():
    assert score_rate([1] * 60 + [0] * 40) == share(60, 100)
    assert score_rate([1] * 7) == share(7, 7)


def test_scores_with_ties_have_that_of_as_many_games_as_vary_alike():
    # 55 wins, 15 ties, 30 losses: p .625, variance .198864, so n = .625 .375 100 / .198864 = 117.857; t 1.984217
    value, low, high = score_rate([1.0] * 55 + [0.5] * 15 + [0.0] * 30)
    middle, half = (0.625 + 0.0167029) / 1.0334059, 1.984217 / 1.0334059 * math.sqrt(0.234375 / 117.857 + 0.0000708616)
    assert (value, low, high) == pytest.approx((0.625, middle - half, middle + half), abs=1e-5)
    # ties alone say nothing of how others would go: as 10 wins of 20, with t .975 of 19 degrees, 2.093024
    alike = score_rate([0.5] * 20)
    assert alike == pytest.approx((0.5, 0.5 - alike.high + 0.5, 0.5 + 0.2119), abs=1e-4)


def test_samples_of_scores_are_averaged_and_few_have_no_interval():
    assert score_rate([[1, 0], [0.5, 0.5], [1, 1]]) == score_rate([0.5, 0.5, 1])
    assert math.isnan(score_rate([0.5]).low)
    assert math.isnan(score_rate([]).value)


def test_a_prompt_with_more_scores_counts_as_much_more_and_its_scores_are_alike():
    # 2 of 2, 1 of 4, 1 of 1, 0 of 1: p 1/2; errors 1, -1, 1/2, -1/2 over 8: variance 2.5 / 64 x 4 / 3 = .052083
    value, low, high = clustered_rate([2, 1, 1, 0], [2, 4, 1, 1])
    # as .25 / .052083 = 4.8 games; t .975 of 3 degrees 3.182446, squared 10.127965: half 3.182446 sqrt(3.731991) / ...
    half = 3.182446 / (1 + 10.127965 / 4.8) * math.sqrt(0.25 / 4.8 + 10.127965 / 4.8**2 / 4)
    assert (value, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-6)
    assert clustered_rate([2, 2, 2], [4, 4, 4]) == score_rate([0.5, 0.5, 0.5])
    assert clustered_rate([2, 4, 1], [2, 4, 1]) == share(3, 3)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=30))
@settings(max_examples=50, deadline=None)
def test_an_interval_of_scores_holds_their_mean_and_stays_within_0_and_1(scores):
    value, low, high = score_rate(scores)
    assert -1e-12 <= low <= value <= high <= 1 + 1e-12
    assert score_rate([1 - one for one in scores]) == pytest.approx((1 - value, 1 - high, 1 - low))


def test_errors_of_0_say_as_much_as_the_games_that_could_have_shown_one():
    assert wilson(1.0, [0.0] * 30, 7) == share(7, 7)
    assert wilson(0.5, [0.0] * 30, 7)[1] < wilson(0.5, [0.0] * 30)[1]
    assert math.isnan(wilson(0.5, [0.0]).low)


def test_the_sign_test_is_of_the_pairs_that_differ():
    blue, red = [1] * 40 + [0] * 20 + [1] * 15, [0] * 40 + [1] * 20 + [1] * 15
    assert sign_test(blue, red) == pytest.approx(0.013489, abs=1e-6)
    assert sign_test([1, 2], [1, 2]) == sign_test([], []) == 1.0
