"""The multiplier's path: worked numbers, window, delay, bound, and its state through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from safe_align.algorithms.multiplier import PID, LogGradient, Multiplier, Newton, Projected
from safe_align.testbeds.s4 import four_arms


def test_it_follows_the_worked_path():
    # log lambda += .1 x lambda x J: exp(.2); exp(.2 + .1 x 1.221403 x 2); exp(.444281 - .1 x 1.559368)
    multiplier = Multiplier(threshold=0.0, init=1.0, rule=LogGradient(0.1), window=1)
    path = [multiplier.update([cost]) for cost in (2.0, 2.0, -1.0)]
    assert path == pytest.approx([1.221403, 1.559368, 1.334216], abs=1e-6)


def test_it_follows_the_published_path_above_a_threshold():
    # lambda 1, lr .1, violation .5 twice: exp(.05), exp(.05 + .05 x 1.051271)
    multiplier = Multiplier(threshold=-1.5, init=1.0, rule=LogGradient(0.1))
    assert [multiplier.update([-1.0]) for _ in range(2)] == pytest.approx([1.051271, 1.108008], abs=1e-6)


def test_it_moves_once_a_round_by_the_mean_whatever_the_number_of_costs():
    one, many = Multiplier(0.0), Multiplier(0.0)
    assert one.update([2.0]) == many.update([1.0, 3.0, 2.0, 0.0, 4.0])


def test_the_mean_is_over_the_newest_costs_of_the_window():
    multiplier = Multiplier(0.0, rule=LogGradient(0.1), window=3)
    multiplier.update([100.0, 100.0])
    multiplier.update([1.0, 2.0, 3.0])
    assert multiplier.mean_cost == 2.0
    multiplier.update([6.0])
    assert multiplier.mean_cost == pytest.approx(11 / 3)  # 2, 3, 6


def test_it_waits_for_the_delay_and_uses_the_costs_seen_meanwhile():
    multiplier = Multiplier(0.0, rule=LogGradient(0.1), delay=2)
    assert multiplier.update([1.0]) == multiplier.update([3.0]) == 1.0
    assert multiplier.update([5.0]) == pytest.approx(math.exp(0.3))  # mean 3


def test_it_stays_at_or_below_the_maximum_and_comes_down_from_there():
    multiplier = Multiplier(0.0, rule=LogGradient(1.0), max=2.0, window=1)
    assert multiplier.update([100.0]) == pytest.approx(2.0)
    assert multiplier.update([-0.1]) == pytest.approx(2 * math.exp(-0.2))


def test_a_start_above_the_maximum_is_brought_down_at_the_first_move():
    assert Multiplier(0.0, init=9.0, max=5.0).update([0.0]) == pytest.approx(5.0)


def test_costs_that_stay_high_never_overflow_and_low_ones_never_bring_it_to_0():
    # without a maximum: log lambda grows by lr x lambda x J, so it reaches any bound after 1 / (lr x J) rounds or so
    multiplier = Multiplier(0.0, rule=LogGradient(0.1), window=1)
    assert [multiplier.update([4.0]) for _ in range(20)][-1] == pytest.approx(1e12)
    assert [multiplier.update([-4.0]) for _ in range(20)][-1] == pytest.approx(1e-12)


def test_a_round_without_costs_moves_nothing():
    multiplier = Multiplier(0.0)
    assert multiplier.update([]) == 1.0
    assert math.isnan(multiplier.mean_cost)


def test_it_falls_below_the_threshold_and_stays_positive():
    multiplier = Multiplier(0.0, rule=LogGradient(0.1), window=1)
    path = [multiplier.update([-1.0]) for _ in range(50)]
    assert path == sorted(path, reverse=True)
    assert path[-1] > 0


def test_its_state_through_json_goes_on_bit_for_bit():
    options = {'threshold': 0.3, 'init': 0.7, 'rule': LogGradient(0.2), 'max': 5.0, 'delay': 1, 'window': 4}
    before = Multiplier(**options)
    for costs in ([0.1, 0.2], [1 / 3, 2.0], [0.7]):
        before.update(costs)
    after = Multiplier(**options)
    after.load_state(json.loads(json.dumps(before.state())))
    assert after.value == before.value
    for costs in ([1.1], [-0.4, 0.9, 2.2], [0.0] * 5):
        assert after.update(costs) == before.update(costs)
        assert list(after.costs) == list(before.costs)
    assert after.costs.maxlen == 4


COSTS = four_arms(1.0).costs[0]


def best_response(value: float, beta: float) -> np.ndarray:
    """The policy of the four-armed problem that maximises E (r - value x c) - beta KL(pi || reference)."""
    return four_arms(beta).best_response(value)[0]


def play(multiplier: Multiplier, beta: float, rounds: int, normalize: bool = False) -> list[float]:
    """The multiplier's path against a policy that answers at once."""
    path = [multiplier.value]
    for _ in range(rounds):
        policy = best_response(multiplier.value, beta * (1 + multiplier.value) if normalize else beta)
        mean = policy @ COSTS
        path.append(multiplier.move(mean - multiplier.threshold, policy @ COSTS**2 - mean**2))
    return path


@pytest.mark.parametrize(('beta', 'fixed_point'), [(1.0, 0.738806), (0.5, 0.862258)])
@pytest.mark.parametrize(
    ('rule', 'rounds'),
    [(LogGradient(0.1), 2000), (Projected(0.1), 2000), (PID(1.0, 0.1, 0.1, 0.5), 500), (Newton(0.0), 10)],
    ids=['log', 'projected', 'pid', 'newton'],
)
def test_every_rule_finds_the_dual_optimum(rule, rounds, beta, fixed_point):
    rule = replace(rule, beta=beta) if isinstance(rule, Newton) else replace(rule)
    multiplier = Multiplier(0.0, init=1.0, rule=rule)
    assert play(multiplier, beta, rounds)[-1] == pytest.approx(fixed_point, abs=2e-6)


def test_dividing_by_one_plus_lambda_moves_the_fixed_point_when_the_divergence_is_in_reward_and_cost():
    # the task's weight shrinks and the divergence's stays: the problem solved is that of beta (1 + lambda)
    assert play(Multiplier(0.0), 0.5, 3000, normalize=True)[-1] == pytest.approx(0.767686, abs=1e-6)
    assert best_response(0.767686, 0.5 * 1.767686) == pytest.approx([0.229260, 0.345264, 0.299373, 0.126103], abs=1e-6)


def test_newton_takes_the_published_steps():
    assert play(Multiplier(0.0, init=0.0, rule=Newton(1.0)), 1.0, 3) == pytest.approx(
        [0, 0.693644, 0.737957, 0.738806], abs=1e-6
    )
    assert play(Multiplier(0.0, init=0.0, rule=Newton(0.5)), 0.5, 5) == pytest.approx(
        [0, 1.318270, 0.615464, 0.831185, 0.861512, 0.862258], abs=1e-6
    )


def test_newton_is_kept_from_the_cycle_that_a_full_step_falls_into():
    # beta .1 from 0: the full step goes to 978.88 and back to 0 for ever
    path = play(Multiplier(0.0, init=0.0, rule=Newton(0.1)), 0.1, 30)
    assert max(path) < 10
    assert path[-1] == pytest.approx(0.960402, abs=1e-6)


def test_newton_follows_a_world_that_moves():
    """What it has seen to violate and to obey is forgotten when it is contradicted."""
    multiplier = Multiplier(0.0, init=1.0, rule=Newton(1.0))
    play(multiplier, 1.0, 10)
    multiplier.threshold = 0.5  # easier
    easier = play(multiplier, 1.0, 30)[-1]
    policy = best_response(easier, 1.0)
    assert policy @ COSTS == pytest.approx(0.5, abs=1e-6)
    multiplier.threshold = -0.2  # harder
    assert best_response(play(multiplier, 1.0, 30)[-1], 1.0) @ COSTS == pytest.approx(-0.2, abs=1e-6)


def test_newton_and_projection_reach_0_where_nothing_is_to_obey():
    for rule in (Newton(1.0), Projected(0.5)):
        multiplier = Multiplier(2.0, init=1.0, rule=rule)
        assert play(multiplier, 1.0, 40)[-1] == 0.0


def test_a_controller_without_averages_is_the_published_one():
    # J 30 28 26 24 22, threshold 25: violations 5 3 1 -1 -3; .1 e + .01 sum e
    multiplier = Multiplier(25.0, init=0.0, rule=PID(0.1, 0.01, 0.0, smoothing=0.0))
    path = [multiplier.move(cost - 25.0, 0.0) for cost in (30, 28, 26, 24, 22)]
    assert path == pytest.approx([0.55, 0.38, 0.19, 0.0, 0.0])


def test_a_controller_sees_no_rise_in_costs_that_stay():
    """Averages that start at 0 would: they rise towards the cost from below."""
    rule = PID(0.0, 0.0, 1.0, smoothing=0.95, delay=3)
    multiplier = Multiplier(0.0, init=0.0, rule=rule)
    assert [multiplier.move(4.0, 0.0) for _ in range(20)] == pytest.approx([0.0] * 20, abs=1e-12)
    assert rule.average / (1 - 0.95**20) == pytest.approx(4.0)


@pytest.mark.parametrize('rule', [LogGradient(0.2), Projected(0.2), PID(smoothing=0.8, delay=2), Newton(0.5)])
def test_every_rule_goes_on_from_json_bit_for_bit(rule):
    fresh, options = replace(rule), {'threshold': 0.1, 'init': 0.7, 'window': 4}
    before = Multiplier(**options, rule=rule)
    for costs in ([0.1, 0.2], [1 / 3, 2.0], [-0.7]):
        before.update(costs)
    after = Multiplier(**options, rule=fresh)
    after.load_state(json.loads(json.dumps(before.state())))
    for costs in ([0.3], [-2.0, 1.0], [0.9]):
        assert before.update(costs) == after.update(costs)
