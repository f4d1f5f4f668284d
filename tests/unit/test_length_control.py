"""Win rates at no difference of lengths: known effects, another optimiser, and data that say little."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from safe_align.config import UserError
from safe_align.evaluate.length_control import bootstrap, length_controlled
from safe_align.evaluate.statistics import score_rate


def draw(number: int, strength: float, effect: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Wins, and lengths in characters: the policy's answers are 30 longer, with a deviation of 100."""
    rng = np.random.default_rng(seed)
    lengths = rng.normal(30, 100, number)
    return (rng.random(number) < expit(strength + effect * np.tanh(lengths / 100))).astype(float), lengths


def test_known_effects_are_recovered_and_length_is_taken_out():
    outcomes, lengths = draw(40_000, 0.4, 1.5)
    found = length_controlled(outcomes, lengths)
    assert found.win_rate.low < expit(0.4) < found.win_rate.high
    assert (found.strength, found.length_effect) == pytest.approx((0.4, 1.5), abs=0.05)
    assert score_rate(outcomes).low > found.win_rate.high  # longer answers won


def test_an_independent_optimiser_finds_the_same():
    outcomes, lengths = draw(300, 0.4, 1.5)
    outcomes[::7] = 0.5
    difficulty = np.random.default_rng(1).standard_normal(300)
    relative = np.tanh(lengths / lengths.std(ddof=1))

    design = np.stack([np.ones(300), relative, difficulty], 1)

    def minus_log_likelihood(beta: np.ndarray) -> float:
        logits = design @ beta
        return np.logaddexp(0, logits).sum() - outcomes @ logits

    def penalised(beta: np.ndarray) -> float:
        chance = expit(design @ beta)
        information = (design * (chance * (1 - chance))[:, None]).T @ design
        return minus_log_likelihood(beta) - np.linalg.slogdet(information)[1] / 2

    effects = minimize(penalised, np.zeros(3), tol=1e-10).x[1:]
    (strength,) = minimize(lambda free: minus_log_likelihood(np.append(free, effects)), np.zeros(1), tol=1e-10).x
    found = length_controlled(outcomes, lengths, difficulty)
    assert found[1:] == pytest.approx((strength, *effects), abs=1e-5)
    assert found.win_rate.value == pytest.approx(expit(strength + effects[1] * difficulty).mean(), abs=1e-6)


def test_equal_lengths_leave_the_win_rate():
    # 55 wins, 15 ties, 30 losses
    outcomes = np.repeat([1, 0.5, 0], [55, 15, 30])
    for difference in (0.0, 40.0):
        found = length_controlled(outcomes, np.full(100, difference))
        assert found.win_rate.value == pytest.approx(0.625)
        assert found.length_effect == 0


def test_the_other_side_has_the_rest_and_the_unit_does_not_matter():
    outcomes, lengths = draw(200, 0.4, 1.5)
    found, other = length_controlled(outcomes, lengths), length_controlled(1 - outcomes, -7 * lengths)
    assert other.win_rate == pytest.approx((1 - found.win_rate.value, 1 - found.win_rate.high, 1 - found.win_rate.low))
    assert (other.strength, other.length_effect) == pytest.approx((-found.strength, found.length_effect))


def test_copies_of_samples_say_no_more_and_the_order_does_not_matter():
    outcomes, lengths = draw(200, 0.4, 1.5)
    found = length_controlled(outcomes, lengths)
    twice = length_controlled(np.stack([outcomes] * 2, 1), np.stack([lengths] * 2, 1))
    assert twice.win_rate == pytest.approx(found.win_rate, abs=1e-3)  # the deviation of copies is that of fewer
    order = np.random.default_rng(2).permutation(200)
    assert length_controlled(outcomes[order], lengths[order]).win_rate == pytest.approx(found.win_rate)


def test_the_bootstrap_agrees_where_prompts_are_many():
    outcomes, lengths = draw(800, 0.4, 1.5)
    low, high = np.quantile(bootstrap(outcomes, lengths, num_resamples=500, seed=3), [0.025, 0.975])
    assert (low, high) == pytest.approx(length_controlled(outcomes, lengths).win_rate[1:], abs=0.012)  # of 0.075


@pytest.mark.parametrize('outcome', [0, 1])
def test_all_wins_or_losses_have_an_interval_that_says_how_few_they_are(outcome):
    lengths = np.random.default_rng(0).normal(size=50)
    value, low, high = length_controlled(np.full(50, outcome), lengths).win_rate
    assert 0 < low < value < high < 1
    assert abs(value - outcome) < 0.02
    assert high - low > 0.07
    assert all(np.isfinite(bootstrap(np.full(50, outcome), lengths, num_resamples=5)))


def test_ties_alone_are_no_certainty():
    few, many = (length_controlled(np.full(number, 0.5), np.arange(number) % 7).win_rate for number in (10, 200))
    assert few.value == many.value == 0.5
    assert few.low < many.low < 0.45 < 0.55 < many.high < few.high


def test_a_winner_that_was_always_longer_has_finite_effects():
    """Lengths tell wins from losses, so the likelihood has no maximum."""
    lengths = np.linspace(-1, 1, 40)
    found = length_controlled(lengths > 0, lengths)
    assert found.win_rate.value == pytest.approx(0.5, abs=1e-6)
    assert 1 < found.length_effect < 10


def test_no_games_have_no_win_rate_and_two_no_interval():
    assert math.isnan(length_controlled([], []).win_rate.value)
    assert math.isnan(length_controlled([1, 0], [1, 2]).win_rate.low)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (([1, 0], [1.0]), r'^lengths: a difference for each outcome was expected; found \(1, 1\) for \(2, 1\)$'),
        (([1, 2], [1.0, 2.0]), '^outcomes: numbers from 0 to 1 were expected$'),
        (([1, 0], [1.0, 2.0], [1.0]), r'^difficulty: one for each of 2 prompts was expected; found \(1,\)$'),
    ],
)
def test_what_does_not_fit_is_told(arguments, said):
    with pytest.raises(UserError, match=said):
        length_controlled(*arguments)


def test_intervals_cover_as_often_as_they_say():
    """1000 studies of 60 prompts; seeds are fixed."""
    truth, held = expit(0.8), 0
    for seed in range(1000):
        _, low, high = length_controlled(*draw(60, 0.8, 1.0, seed)).win_rate
        held += low <= truth <= high
    assert held / 1000 == pytest.approx(0.95, abs=0.02)
