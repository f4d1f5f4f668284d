"""The anytime gate: what its looks claim of a policy that changes between them, by numbers and by simulation."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from safe_align.algorithms import ppo, reinforce_ci_lag
from safe_align.algorithms.gate import Gate, level_of
from safe_align.config import UserError


def gate_of(costs, *, threshold=0.5, limits=(0.0, 1.0), delta=0.1, every=1, names=('cost',)) -> Gate:
    """A gate whose cost models say what is in `costs[round]`, (m, n), the round being set on the result."""
    gate = Gate(None, {}, [threshold] * len(names), limits, delta, every)
    gate.round = 0

    def sample(rows, round_number):
        assert round_number == 0  # the same random numbers at every look
        return [SimpleNamespace(conversation=row) for row in rows]

    gate.rollouts = SimpleNamespace(turns=[['?']] * np.shape(costs)[-1], sample=sample)
    for number, name in enumerate(names):
        gate.scorers[name] = lambda rows, number=number: torch.tensor(np.asarray(costs)[gate.round, number][rows])
    return gate


def test_the_levels_of_all_looks_add_up_to_delta():
    assert level_of(1, 0.1) == pytest.approx(0.0607927, abs=5e-8)  # .6 / pi^2
    assert level_of(2, 0.1) == pytest.approx(0.0607927 / 4, abs=5e-8)
    total = sum(level_of(look, 0.1) for look in range(1, 10001))
    assert 0.09999 < total < 0.1


def test_a_look_is_a_process_of_its_own_at_its_own_level():
    """Costs 0, 0, 1 at a threshold of 1/2, in float64 by the definition, at looks 1 and 3."""
    gate = gate_of([[[0.0, 0.0, 1.0]]], every=2)
    for rounds, look in ((2, 1), (6, 3)):
        level, wealth, best, total, squares = 0.6 / math.pi**2 / look**2, 1.0, 1.0, 0.0, 0.0
        for t, x in enumerate((0.0, 0.0, 1.0), 1):
            bet = min(math.sqrt(2 * math.log(1 / level) / ((0.25 + squares) / t * t * math.log(1 + t))), 1.0)
            wealth *= 1 - bet * (x - 0.5)
            best, total = max(best, wealth), total + x
            squares += (x - (0.5 + total) / (t + 1)) ** 2
        assert gate(rounds) == pytest.approx({
            'certify/look': look, 'certify/level': level, 'certify/e_value': wealth, 'certify/mean_cost': 1 / 3,
            'certify/crossed': 0.0, 'certify/established': 0.0,
        })  # fmt: skip
    assert best == 2.25  # 1.5 x 1.5, then a cost of 1
    assert gate(3) == {}


def test_crossing_1_over_delta_is_less_than_establishing():
    """All bets are at their cap, 1 / (2 (1 - m)) = 1, so that each cost of 0 pays 1.5: 1.5^6 = 11.39, 1.5^8 = 25.6."""
    six, eight = (gate_of([[[0.0] * n]])(1) for n in (6, 8))
    assert six['certify/e_value'] == pytest.approx(1.5**6)
    assert (six['certify/crossed'], six['certify/established']) == (1.0, 0.0)  # 10 and pi^2 / .6 = 16.4
    assert (eight['certify/crossed'], eight['certify/established']) == (1.0, 1.0)


def test_costs_outside_the_range_are_cut_and_several_costs_are_told_apart():
    two = [[[-5.0] * 8, [3.0] * 8]]
    told = gate_of(two, names=('cost_1', 'cost_2'))(1)
    assert told['certify/e_value_1'] == pytest.approx(1.5**8)
    assert told['certify/e_value_2'] < 1
    assert (told['certify/mean_cost_1'], told['certify/mean_cost_2']) == (-5.0, 3.0)


def test_policies_at_the_threshold_are_established_in_no_more_than_delta_of_all_runs():
    """400 runs of 12 looks at the same 60 prompts, half of the policies' costs kept from look to look."""
    generator = np.random.default_rng(0)
    crossed = established = 0
    for _ in range(400):
        fresh = generator.random((12, 1, 60))
        kept = generator.random((12, 1, 60)) < 0.5
        draws = np.where(kept, fresh[:1], fresh)
        gate = gate_of((draws < 0.3).astype(float), threshold=0.3)
        told = []
        for gate.round in range(12):
            told.append(gate(gate.round + 1))
        crossed += any(one['certify/crossed'] for one in told)
        established += any(one['certify/established'] for one in told)
    assert stats.beta.ppf(0.001, established, 401 - established) <= 0.1 if established else True
    assert crossed > 0.1 * 400  # so the levels of the looks are needed


CERTIFY = {'certify_every': 1, 'certify_range': [-50.0, 50.0], 'threshold': [0.0]}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'certify_every': 1}, '--certify_every 1: needs --certify_datasets'),
        ({'certify_range': [0.0, 1.0]}, '--certify_range: is for --certify_every, which is not given'),
        ({**CERTIFY, 'certify_datasets': ['alpaca'], 'certify_range': None}, '--certify_range is missing: two finite'),
        ({**CERTIFY, 'certify_datasets': ['alpaca'], 'certify_range': [1.0]}, '--certify_range 1.0: two finite'),
        ({**CERTIFY, 'certify_datasets': ['alpaca'], 'certify_range': [1.0, -1.0]}, '--certify_range 1.0 -1.0: two'),
        ({**CERTIFY, 'certify_datasets': ['alpaca'], 'threshold': [50.0]}, '--threshold 50.0: is not inside'),
        ({**CERTIFY, 'certify_datasets': ['alpaca'], 'certify_delta': 1.0}, '--certify_delta 1: must be above 0'),
    ],
)
def test_options_that_make_no_gate(build, options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_prompts_that_the_run_trains_on_are_counted_and_too_few_are_refused(build, starter, tmp_path):
    train, test = (starter / f'{name}.jsonl' for name in ('train', 'test'))
    mixed = tmp_path / 'mixed.jsonl'
    lines = (test.read_text().splitlines()[:20], train.read_text().splitlines())
    mixed.write_text('\n'.join([*lines[0], *lines[1]]) + '\n')
    with pytest.raises(UserError, match=r'--certify_datasets: 8 of 284 prompts are among those that this run trains'):
        build(**CERTIFY, certify_datasets=[f'jsonl:1:{mixed}'])
    with pytest.raises(
        UserError, match=r'4 prompts are too few: with the lowest cost on each the e-value would be 5.06'
    ):
        build(reinforce_ci_lag, **CERTIFY, num_samples_per_prompt=2, certify_datasets=[f'jsonl:4/-1:{test}'])
    assert not (tmp_path / 'run-1').exists()


def test_ppo_without_costs_has_no_gate(build):
    with pytest.raises(TypeError):
        build(ppo, certify_every=1)
