"""Several constraints, and mixtures of kinds: which hold, what their bounds are, and that anyone can check both."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_certificate import MEAN, RATE, changed, fails, recorded

from safe_align.bounds import betting
from safe_align.config import UserError
from safe_align.evaluate.certification import text as words
from safe_align.evaluate.certification.certificate import CERTIFIED, NOT_CERTIFIED, canonical, seal
from safe_align.evaluate.certification.constraints import Terms, check_enough, constraints_of
from safe_align.evaluate.certification.costs import Costs
from safe_align.evaluate.certification.verification import run_verification
from safe_align.evaluate.strata import weights_of
from safe_align.guarantees import holm, step_down

WHICH = Terms('which')
NAMES = [f'{n:016x}' for n in range(40)]
SHARES = Terms(strata_weights={'red': 0.7, 'benign': 0.3})


def harmless(columns: int = 3) -> Costs:
    return Costs(NAMES, [[-1.0] * columns for _ in NAMES])


def rates(*thresholds: float) -> dict:
    return {n: changed(RATE, threshold=threshold) for n, threshold in enumerate(thresholds)}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.floats(0.001, 0.5))
@settings(max_examples=200, deadline=None)
def test_with_p_values_stepping_down_is_holm_s_method(p_values, delta):
    passes = np.array([[p * m <= delta for p in p_values] for m in range(1, len(p_values) + 1)])
    assert step_down(passes).tolist() == [p <= delta for p in holm(p_values)]


def test_a_test_that_fails_at_a_level_it_passed_below_counts_as_failing():
    """Three claims; the first passes at delta / 2 and delta / 3 alone, so it fails; the others do not need it."""
    passes = np.array([[False, True, True], [True, True, True], [True, True, True]])
    assert step_down(passes).tolist() == [False, True, True]
    # nobody passes at delta / 3: the set of all three refutes everyone, whatever passes above
    assert not step_down(np.array([[True] * 3, [True] * 3, [False] * 3])).any()
    for table in ([[True, False]], [], [[]], [True]):
        with pytest.raises(UserError, match='as many of both'):
            step_down(np.array(table, dtype=bool))


def test_which_hold_by_hand():
    """40 harmless answers: p = (1 - threshold)^40, .0332, .0549 and .0842; x 3 and x 2 is .0996 and .1098."""
    told = constraints_of(rates(0.0816, 0.07, 0.06), harmless(), WHICH)
    assert [one['holds'] for one in told] == [True, False, False]
    assert [one['level'] for one in told] == pytest.approx([0.1 / 3, 0.05, 0.05])
    assert [one['value'] for one in told] == pytest.approx([1 - (0.1 / 3) ** (1 / 40), *[1 - 0.05 ** (1 / 40)] * 2])
    assert [one['claim']['delta'] for one in told] == [0.1] * 3
    told = constraints_of(rates(0.0816, 0.075, 0.06), harmless(), WHICH)  # .0442 x 2 is .0884, and .0842 follows
    assert [one['holds'] for one in told] == [True] * 3
    told = constraints_of(rates(0.0816, 0.07, 0.06), harmless(), Terms())
    assert [one['holds'] for one in told] == [True] * 3  # each at .1, for all together
    assert {one['level'] for one in told} == {0.1}


def test_no_false_constraint_is_named_more_often_than_delta():
    """Betting, whose tests at other levels are others: one rate is safe, two are at the threshold; 2,000 studies."""
    generator = np.random.default_rng(3)
    costs = (generator.random((3, 2000, 50)) < np.array([0.02, 0.3, 0.3])[:, None, None]).astype(float)
    passes = np.array(
        [[betting.upper_bounds(one, delta=0.1 / m, low=0, high=1) <= 0.3 for one in costs] for m in (1, 2, 3)]
    )
    named = np.array([step_down(passes[:, :, study]) for study in range(2000)])
    false = int(named[:, 1:].any(1).sum())
    assert false > 0
    assert stats.beta.ppf(0.001, false, 2001 - false) <= 0.1
    assert named[:, 0].mean() > 0.95


def test_a_mixture_by_hand():
    """Hoeffding at .05 each: .7 (.25 + sqrt(ln 20 / 16)) + .3 x 1, since the second is cut at 1."""
    costs = Costs(NAMES[:10], [[1.0], [1.0], *[[-1.0]] * 6, [1.0], [-1.0]], ['red'] * 8 + ['benign'] * 2)
    claim = changed(RATE, bound='hoeffding', threshold=0.78)
    (one,) = constraints_of({0: claim}, costs, SHARES)
    assert one['value'] == pytest.approx(0.7 * (0.25 + math.sqrt(math.log(20) / 16)) + 0.3)
    assert one['mean'] == pytest.approx(0.7 * 0.25 + 0.3 * 0.5)
    assert (one['holds'], one['num_unsafe'], one['stratum'], one['level']) == (True, 3, None, 0.1)
    assert [(kind['kind'], kind['weight'], kind['num'], kind['mean']) for kind in one['kinds']] == [
        ('red', 0.7, 8, 0.25), ('benign', 0.3, 2, 0.5)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (['red'], 'red: KIND=SHARE was expected'),
        (['red=x', 'benign=1'], 'red=x: KIND=SHARE was expected'),
        (['red=0', 'benign=1'], 'red=0: KIND=SHARE was expected'),
        (['red=nan', 'benign=1'], 'red=nan: KIND'),
        (['red=0.5', 'red=0.5'], 'red=0.5: KIND=SHARE was expected, each kind once'),
        (['red=1'], 'red=1: benign has no share; the kinds are benign, red'),
        (['red=0.5', 'benign=0.2', 'blue=0.3'], 'no prompt is of the kind blue'),
    ],
)
def test_shares_that_are_none(given, message):
    with pytest.raises(UserError, match=message):
        weights_of(given, ['red', 'benign'])
    with pytest.raises(UserError, match=r'the shares add up to 0.9, not to 1'):
        Terms(strata_weights=weights_of(['red=0.5', 'benign=0.4'], ['red', 'benign']))
    assert weights_of(['red=0.25', 'a=b=0.75'], ['red', 'a=b']) == {'red': 0.25, 'a=b': 0.75}


def test_a_test_that_cannot_pass_is_refused_before_its_prompts_are_spent():
    with pytest.raises(UserError, match=r'40 prompts are too few for --bound clopper_pearson.* at least 45 are needed'):
        check_enough([*rates(0.05, 0.05).values()], {'': 40}, Terms(), None)
    check_enough([*rates(0.0721, 0.0723).values()], {'': 40}, WHICH, None)  # the second passes at .05
    with pytest.raises(UserError, match=r'40 prompts are too few'):
        check_enough([*rates(0.0721, 0.0721).values()], {'': 40}, WHICH, None)
    with pytest.raises(UserError, match=r'9 of --strata red, 9 of --strata benign: prompts are too few'):
        check_enough([changed(RATE, threshold=0.2)], {'red': 9, 'benign': 9}, SHARES, 'kind')
    check_enough([changed(RATE, threshold=0.3)], {'red': 9, 'benign': 9}, SHARES, 'kind')
    with pytest.raises(UserError, match='the worst costs of kinds do not add up'):
        check_enough([changed(MEAN, bound='cvar')], {'red': 900, 'benign': 900}, SHARES, 'kind')


@pytest.mark.parametrize(
    ('place', 'value', 'part'),
    [
        (('terms', 'constraints'), 'all', 'level is another'),
        (('constraints', 1, 'holds'), True, 'holds is another'),
        (('verdict',), NOT_CERTIFIED, 'the verdict is another'),
    ],
)
def test_which_hold_is_checked_by_anyone(tmp_path, capsys, place, value, part):
    content = recorded(tmp_path, harmless(), rates(0.0816, 0.07, 0.06), WHICH)
    assert content['verdict'] == CERTIFIED
    assert run_verification(str(tmp_path / 'certificate.json'), None, None) == 0
    text = words.page(content)
    assert text.startswith('# Safety test: certified, 1 of 3 constraints\n')
    assert 'names any that does not is at most 0.1, all 3 together (Holm)' in text
    assert words.summary(content).startswith('certified, 1 of 3 constraints: ')
    tampered(tmp_path, content, place, value)
    assert part in fails(tmp_path / 'certificate.json')


@pytest.mark.parametrize(
    ('place', 'value', 'part'),
    [
        (('terms', 'strata_weights', 'red'), 0.71, 'the shares add up to 1.01'),
        (('terms', 'strata_weights'), {'red': 0.3, 'benign': 0.7}, 'kinds is another'),
        (('terms', 'strata_weights'), {'red': 0.5, 'blue': 0.5}, 'it has another form'),
        (('terms', 'strata_weights'), None, 'value is another'),
        (('constraints', 0, 'kinds', 0, 'value'), 0.0, 'kinds is another'),
    ],
)
def test_a_mixture_is_checked_by_anyone(tmp_path, place, value, part):
    costs = Costs(NAMES, [[-1.0] for _ in NAMES], ['red', 'benign'] * 20)
    content = recorded(tmp_path, costs, rates(0.2), SHARES)
    assert run_verification(str(tmp_path / 'certificate.json'), None, None) == 0
    text = words.page(content)
    assert 'On prompts like those of this test, 0.7 of them red, 0.3 of them benign, the rate' in text
    assert '0.7 of the prompts are red; 20 of this test were.' in text
    tampered(tmp_path, content, place, value)
    assert part in fails(tmp_path / 'certificate.json')


def tampered(directory, content: dict, place: tuple, value) -> None:
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    assert holder[place[-1]] != value
    holder[place[-1]] = value
    (directory / 'certificate.json').write_text(canonical(seal(content)), encoding='utf-8')
