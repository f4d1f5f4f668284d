"""The study of samplers against numbers worked out apart from it, autograd, and the laws that it draws from."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_align.bandit.__main__ import BanditConfig, main
from safe_align.bandit.convergence import band, first_below, fit, noise_floor
from safe_align.bandit.curves import Curve, Setting, follow
from safe_align.bandit.descent import empirical, exact, logits_of, sigmoid
from safe_align.bandit.metrics import best_value, param_diff, value_diff
from safe_align.bandit.rewards import draw
from safe_align.bandit.samplers import WEIGHTS, arms_of, newton_step, newton_step_at_the_end, total
from safe_align.bandit.study import measure, rewards_of
from safe_align.bandit.summary import summarise
from safe_align.config import UserError, parse

SEED, BETA = 1234567, 3.0
PRINTED = [
    -1.462022, -0.282396, 2.455863, 1.610924, -1.221372, 0.360827, -2.276941, -0.568186, 0.449364, -0.679287,
    -0.013018, -0.271159, -0.063012, -0.047575, -0.196766, 0.618166, -2.185448, 1.006185, 0.066296, 0.159153,
]  # fmt: skip
STEPS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
PARAMS = {  # at lr 10; from some step on no more than rounding
    'unif': ['1.208', '0.6889', '0.2671', '0.1258', '0.02642', '0.003561', '0.0003341', '7.411e-07', '3.761e-11'],
    'mix_r': ['1.208', '2.730', '2.126', '1.611', '0.8426', '0.05271'],
    'mix_p': ['1.208', '0.6889', '0.2916', '0.04870', '6.033e-06'],
}
VALUES = {
    'unif': ['0.2079', '0.05407', '0.01417', '0.003721', '0.0001754', '1.607e-06'],
    'mix_p': ['0.2079', '0.05407', '0.009670', '0.0002736', '4.2e-12'],
}
THREE = {  # r = 0, 1/2, 1, beta 1, Newton's step: Param Diff from step 0 on, and theta of the last arm after 1 and 2
    'unif': (['0.4444444', '0.02546026', '0.003930967', '0.0006333720', '0.0001027097'], ['0.471357', '0.495578']),
    'mix_r': (['0.4444444', '0.05816193', '0.001350994', '7.167235e-07', '2.0e-13'], ['0.565432', '0.501520']),
    'mix_p': (['0.4444444', '0.02546026', '0.0002440527', '2.336938e-08'], ['0.471357', '0.499725']),
}
EMPIRICAL = {'unif': (513, 707, 0.0060), 'mix_r': (345, 479, 0.0059), 'mix_p': (402, 532, 0.0055)}  # 3 seeds' means
samplers = pytest.mark.parametrize('sampler', WEIGHTS)


def path(sampler, rewards, beta, lr, num_steps, **options):
    """Logits after 0, 1, ... steps: (T + 1, D, K)."""
    return np.stack([*itertools.islice(logits_of(sampler, rewards, beta, lr, **options), num_steps + 1)])


def agree(found, printed):
    """Each number, to the digits printed."""
    for one, text in zip(found, printed, strict=False):
        digits = len(text.split('e')[0].replace('.', '').lstrip('0'))
        assert float(f'{one:.{digits - 1}e}') == pytest.approx(float(text), rel=1e-12), (one, text)


def test_rewards_are_those_of_torch():
    np.testing.assert_allclose(draw(SEED, 1, 20)[0], PRINTED, rtol=0, atol=6e-7)  # printed to 6 digits, from float32
    for count in (16, 20, 31, 32, 50):
        for row, seed in zip(draw(7, 2, count), (7, 8), strict=True):
            drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed))
            np.testing.assert_allclose(row, drawn.double().numpy(), rtol=0, atol=1e-6)
    assert draw(7, 3, 5).tolist() == draw(7, 3, 16)[:, :5].tolist()


def test_the_problem_of_the_paper():
    rewards = draw(SEED, 1, 20)
    start = np.zeros_like(rewards)
    assert best_value(rewards, BETA)[0] == pytest.approx(9.068083, abs=5e-7)
    assert best_value(rewards, BETA)[0] - value_diff(start, rewards, BETA)[0] == pytest.approx(8.860177, abs=5e-7)
    first, second = arms_of(20)
    gaps = rewards[:, first] - rewards[:, second]
    assert total(WEIGHTS['mix_r'](gaps, gaps), 20)[0, 0] == pytest.approx(3575.046, abs=5e-4)
    assert newton_step_at_the_end('mix_r', rewards, BETA)[0] == pytest.approx(9.930683, abs=1e-6)
    assert newton_step_at_the_end('mix_p', rewards, BETA)[0] == pytest.approx(9.930683, abs=1e-6)
    assert newton_step_at_the_end('unif', rewards, BETA)[0] == 4 * 20**2 / (2 * BETA**2 * 20)


@samplers
def test_exact_feedback_at_the_papers_step_size(sampler):
    rewards = draw(SEED, 1, 20)
    logits = path(sampler, rewards, BETA, 10.0, 100)
    params, values = (distance(logits, rewards, BETA)[:, 0] for distance in (param_diff, value_diff))
    agree(params[[*STEPS]], PARAMS[sampler])
    agree(values[[*STEPS]], VALUES.get(sampler, []))
    if sampler != 'unif':
        assert params[20:].max() < 1e-14
    if sampler == 'mix_p':
        assert params[10:].max() < 1e-14
        assert 0 <= values[10:].max() < 1e-28  # V* - V taken as it stands would stop at 1e-15


@samplers
def test_three_arms_worked_out(sampler):
    params, thetas = THREE[sampler]
    rewards = np.array([[0.0, 0.5, 1.0]])
    logits = path(sampler, rewards, 1.0, None, 4)
    agree(param_diff(logits, rewards, 1.0)[:, 0], params)
    agree(logits[1:, 0, 2], thetas)
    np.testing.assert_allclose(logits[:, 0, 0], -logits[:, 0, 2], atol=1e-15)
    if sampler == 'mix_p':
        assert param_diff(logits, rewards, 1.0)[4, 0] < 1e-15


def test_weights_are_mixtures_of_the_samplers_that_the_paper_names():
    """alpha_1 of uniform pairs, and alpha_2 of one arm from exp(g) and one from exp(-g), in either order."""
    rewards, logits = np.random.default_rng(0).normal(size=(2, 1, 6))
    first, second = arms_of(6)
    for sampler, values in (('mix_r', rewards), ('mix_p', BETA * logits)):
        up, down = (torch.softmax(torch.tensor(sign * values[0]), 0).numpy() for sign in (1, -1))
        alpha = np.exp(values[0][:, None] - values[0]).sum()
        uniform = np.full((6, 6), 1 / 6**2)
        both = 6**2 * (uniform + uniform.T) + alpha * (np.outer(up, down) + np.outer(down, up))
        gaps = [one[:, first] - one[:, second] for one in (rewards, BETA * logits)]
        np.testing.assert_allclose(WEIGHTS[sampler](*gaps)[0], both[first, second], rtol=1e-13)
        assert total(WEIGHTS[sampler](*gaps), 6)[0, 0] == pytest.approx(both.sum(), rel=1e-13)


@samplers
def test_a_step_goes_down_the_gradient_of_the_loss(sampler):
    """By autograd, of the sum over all ordered pairs, with the sampler held fixed."""
    rewards = np.random.default_rng(1).normal(size=(1, 7))
    logits = path(sampler, rewards, 1.5, 0.8, 5)
    for before, after in itertools.pairwise(logits[:, 0]):
        theta, r = torch.tensor(before, requires_grad=True), torch.tensor(rewards[0])
        h, x = 1.5 * (theta[:, None] - theta), r[:, None] - r
        exponent = {'unif': 0 * x, 'mix_r': x, 'mix_p': h.detach()}[sampler]
        weights = 2 + exponent.exp() + (-exponent).exp()
        wins = torch.sigmoid(x)
        log_likelihood = wins * torch.nn.functional.logsigmoid(h) + (1 - wins) * torch.nn.functional.logsigmoid(-h)
        (-(weights / weights.sum() * log_likelihood).sum()).backward()
        np.testing.assert_allclose(after, before - 0.8 * theta.grad.numpy(), rtol=0, atol=1e-15)


@samplers
def test_drawn_pulls_have_the_mean_and_the_variance_of_pairs_drawn_one_by_one(sampler):
    rng, draws, pairs = np.random.default_rng(2), 20_000, 50
    x, h = rng.normal(size=(2, 1, 6))  # of 4 arms
    weights = WEIGHTS[sampler](x, h)
    shares = np.tile(weights / total(weights, 4), (draws, 1))
    wins, p = sigmoid(x), sigmoid(h)
    pulls = empirical(pairs, rng)(shares, np.tile(wins, (draws, 1)), np.tile(h, (draws, 1)))
    expected = exact(shares[:1], wins, h)[0]
    second = 2 * shares[0] * (wins * (1 - p) ** 2 + (1 - wins) * p**2)[0]  # of one pair: wins - p, or -p, or 0
    variance = (second - expected**2) / pairs
    assert (np.abs(pulls.mean(0) - expected) < 4.5 * np.sqrt(variance / draws)).all()
    np.testing.assert_allclose(pulls.var(0), variance, rtol=0.06)


def test_a_drawn_pair_is_a_win_a_loss_or_none():
    """One pair a step on two arms: half of the pairs are of an arm with itself, and teach nothing."""
    quarter, gap = np.full((10_000, 1), 0.25), np.zeros((10_000, 1))
    pulls = empirical(1, np.random.default_rng(3))(quarter, np.full((10_000, 1), 0.8), gap)
    counts = Counter(pulls[:, 0].tolist())
    assert set(counts) == {-0.5, 0.0, 0.5}
    assert counts[0.0] == pytest.approx(5000, abs=250)
    assert counts[0.5] == pytest.approx(4000, abs=250)


def test_only_mix_p_is_clipped_by_the_known_range():
    rewards = draw(SEED, 2, 20)
    for sampler in ('unif', 'mix_r'):
        free, held = (path(sampler, rewards, BETA, 10.0, 5, clip=clip) for clip in (False, True))
        assert free.tolist() == held.tolist()
    rewards = np.array([[0.0, 1.0]])
    free, held = (path('mix_p', rewards, 1.0, 40.0, 2, clip=clip) for clip in (False, True))
    assert free[1].tolist() == held[1].tolist()
    assert abs(np.diff(free[1, 0])[0]) > 1  # beyond the range, so from here on they part
    assert free[2].tolist() != held[2].tolist()


finite = st.floats(-3, 3, allow_nan=False)


@given(st.lists(finite, min_size=2, max_size=6), st.randoms(use_true_random=False), finite, st.sampled_from([*WEIGHTS]))
@settings(max_examples=60, deadline=None)
def test_names_of_arms_and_a_constant_in_the_rewards_change_nothing(values, random, shift, sampler):
    order = [*range(len(values))]
    random.shuffle(order)
    rewards = np.array([values])
    before, after = (path(sampler, one, 2.0, 1.0, 8) for one in (rewards, rewards[:, order] + shift))
    np.testing.assert_allclose(after, before[:, :, order], rtol=0, atol=1e-12)
    np.testing.assert_allclose(before.sum(-1), 0, atol=1e-13)


@given(st.lists(finite, min_size=2, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_distances_are_what_their_definitions_say(values, data):
    rewards = np.array(values)
    logits = np.array(data.draw(st.lists(finite, min_size=len(values), max_size=len(values))))
    left = rewards - BETA * logits
    assert param_diff(logits, rewards, BETA) == pytest.approx(np.abs(left[:, None] - left).mean(), rel=1e-12, abs=1e-14)
    log_policy = torch.log_softmax(torch.tensor(logits), 0).numpy()
    value = (np.exp(log_policy) * (rewards - BETA * log_policy)).sum()
    best = BETA * torch.logsumexp(torch.tensor(rewards) / BETA, 0).item()
    assert best_value(rewards, BETA) == pytest.approx(best, rel=1e-13)
    assert value_diff(logits, rewards, BETA) == pytest.approx(best - value, rel=1e-12, abs=1e-13)
    assert value_diff(logits, rewards, BETA) >= 0


def test_order_and_rate_of_curves_that_have_one():
    steps = np.arange(60)
    line = fit(3 * 0.5**steps)
    assert line == pytest.approx((1, 0.5))
    assert fit(0.5 ** (2.0 ** steps[:10] - 1)).order == pytest.approx(2)
    bent = np.concatenate([3 * 0.5 ** (2.0 ** steps[:3]), 0.1 * 0.3 ** steps[1:]])  # a parabola that ends as a line
    assert fit(bent) == pytest.approx((1, 0.3), rel=1e-3)
    assert fit(3 * 0.5**steps + 0.01, floor=0.04).rate == pytest.approx(0.5, abs=0.2)
    for curve in (np.zeros(5), np.array([1.0, 0.5]), np.array([1.0, np.nan, np.nan, np.nan]), np.full(9, 1.0)):
        assert np.isnan(fit(curve)).all()


def test_quantiles_over_draws_count_what_never_arrives():
    curves = np.array([[1.0, 1.0, 1.0], [0.5, 0.01, np.nan], [0.04, 0.5, np.nan]])
    assert first_below(curves, 0.1).tolist() == [2, 1, np.inf]
    assert band(first_below(curves, 0.1)) == (2, 1, np.inf)
    assert band(curves)[0].tolist() == [1.0, 0.5, 0.5]
    assert noise_floor(curves[:, :2]).tolist() == pytest.approx([0.27, 0.255])  # of 3 steps the last 2


def summary_of(sampler, lr, rewards, num_steps=100):
    curve = follow(Setting('exact', 'newton' if lr is None else 'fixed', sampler, lr, num_steps), rewards, BETA, 1, 0)
    return summarise(curve, rewards, BETA)


def test_the_theory_on_200_bandits():
    """Unif is a line whatever its step; Mix-R and Mix-P are quadratic with Newton's step, lines with a fixed one."""
    rewards = draw(SEED, 200, 20)
    newton = {sampler: summary_of(sampler, None, rewards) for sampler in WEIGHTS}
    fixed = {sampler: summary_of(sampler, 10.0, rewards) for sampler in WEIGHTS}
    for one in (newton['unif'], *fixed.values()):
        assert one['order']['median'] == pytest.approx(1, abs=0.01)
        assert one['rate']['median'] < 1
    assert fixed['mix_p']['rate']['median'] < 0.4 < 0.8 < fixed['unif']['rate']['median']
    for sampler in ('mix_r', 'mix_p'):
        assert newton[sampler]['order']['low'] > 1.85
        assert newton[sampler]['order']['median'] == pytest.approx(2, abs=0.08)
        assert newton[sampler]['rate'] is None
    median = {sampler: one['steps_to_1e-6']['median'] for sampler, one in newton.items()}
    assert median['mix_p'] == 5
    assert median['mix_r'] == 8
    assert median['unif'] == pytest.approx(27, abs=2)
    assert [newton[one]['num_arrived'] for one in ('mix_r', 'mix_p')] == [200, 200]


def noisy(num_steps):
    """Each sampler on the bandit of the paper, under the noise of 20 seeds: Param Diff, (T + 1, 20)."""
    config = parse(BanditConfig, [
        '--output_dir', '-', '--feedback', 'empirical', '--num_steps', str(num_steps), '--rewards', *map(str, PRINTED),
    ])  # fmt: skip
    return {curve.setting.sampler: curve.param_diff for curve in measure(config, rewards_of(config))}


def assert_mean(values, golden):
    """The golden is a mean over 3 seeds, this one over 20: they differ by less than 4 standard deviations."""
    assert values.mean() == pytest.approx(golden, abs=4 * values.std(ddof=1) * np.sqrt(1 / 3 + 1 / 20))


def test_noise_slows_all_samplers_and_mixtures_stay_ahead():
    curves = noisy(800)
    for sampler, (to_10, to_5, _) in EMPIRICAL.items():
        assert_mean(first_below(curves[sampler], 0.1), to_10)
        assert_mean(first_below(curves[sampler], 0.05), to_5)


@pytest.mark.slow
def test_all_samplers_end_at_one_floor():
    curves = noisy(3000)
    floors = {sampler: noise_floor(curve) for sampler, curve in curves.items()}
    for sampler, (_, _, golden) in EMPIRICAL.items():
        assert_mean(floors[sampler], golden)
        assert floors[sampler].mean() == pytest.approx(0.0056, abs=4e-4)


def test_what_diverges_is_counted():
    rewards = draw(SEED, 3, 20)
    setting = Setting('empirical', 'fixed', 'mix_p', 1e308, 30)
    summary = summarise(follow(setting, rewards, BETA, 8, 0), rewards, BETA)
    assert (summary['num_diverged'], summary['num_arrived'], summary['rate']) == (3, 0, None)
    alone = np.array([[0.0, 1.0], [0.0, 2000.0]])  # the one that diverges leaves the other as it is
    curve = follow(Setting('exact', 'newton', 'mix_r', None, 20), alone, 1.0, 1, 0)
    summary = summarise(curve, alone, 1.0)
    assert (summary['num_diverged'], summary['num_arrived']) == (1, 1)
    assert json.loads(json.dumps(summary, allow_nan=False))['lr'] == {'median': pytest.approx(4.54308), 'low':
        pytest.approx(4.54308), 'high': None}  # fmt: skip


def test_curves_do_not_depend_on_which_others_run():
    config = parse(BanditConfig, ['--output_dir', '-', '--num_draws', '2', '--num_steps', '4', '6'])
    rewards = rewards_of(config)
    everything = {curve.setting: curve for curve in measure(config, rewards)}
    for setting, curve in everything.items():
        assert follow(setting, rewards, BETA, config.num_pairs, SEED).param_diff.tolist() == curve.param_diff.tolist()
    assert len(everything) == 9


def test_many_steps_are_thinned_to_a_thousand_points():
    blank = np.zeros((3001, 1))
    shown = Curve(Setting('empirical', 'fixed', 'unif', 0.05, 3000), blank, blank).shown()
    assert (len(shown), shown[0], shown[-1]) == (1000, 0, 3000)
    assert Curve(Setting('exact', 'fixed', 'unif', 10.0, 100), blank, blank).shown().tolist() == [*range(101)]


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        ('--num_actions 1', '--num_actions 1: must be at least 2'),
        ('--beta 0', '--beta 0.0: must be a number above 0'),
        ('--beta inf', '--beta inf: must be a finite number'),
        ('--lr 10 -1', '--lr -1.0: must be a number above 0'),
        ('--lr 10', '--lr: 1 numbers for 2 kinds of --feedback; give one each'),
        ('--feedback exact --num_steps 5 6', '--num_steps: 2 numbers for 1 kinds of --feedback; give one each'),
        ('--num_draws 0', '--num_draws 0: must be at least 1'),
        ('--rewards 0 1 2 --num_actions 4', '--num_actions 4: --rewards has 3 numbers'),
        ('--rewards 1', '--rewards 1.0: at least 2 are needed'),
        ('--rewards 0 inf', '--rewards inf: must be a finite number'),
        ('--rewards 0 nan', '--rewards nan: must be a finite number'),
        ('--sampler unif unif', '--sampler unif unif: one is named twice'),
    ],
)
def test_mistakes_are_told_in_a_line(flags, said):
    with pytest.raises(UserError) as told:
        parse(BanditConfig, ['--output_dir', '-', *flags.split()])
    assert str(told.value) == said


def test_the_stage_leaves_its_files_and_can_be_run_again(tmp_path, capsys):
    def run(folder, *flags):
        few = ('--num_draws', '3', '--num_steps', '30', '40', '--num_actions', '5', '--num_pairs', '64')
        assert main(parse(BanditConfig, ['--output_dir', str(tmp_path / folder), *few, *flags])) == 0
        return capsys.readouterr()

    shown = run('one')
    assert [line.split('|')[3].strip() for line in shown.out.splitlines()[2:11]] == [
        'DPO-Unif', 'DPO-Mix-R', 'DPO-Mix-P', 'DPO-Unif', 'DPO-Mix-R', 'DPO-Mix-P', 'DPO-Unif', 'DPO-Mix-R',
        'DPO-Mix-P*',
    ]  # fmt: skip
    with (tmp_path / 'one/curves.csv').open(newline='') as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 3 * (6 * 31 + 3 * 41)
    assert {row['step_size'] for row in rows if row['feedback'] == 'empirical'} == {'fixed'}
    summary = json.loads((tmp_path / 'one/summary.json').read_text(encoding='utf-8'))
    assert len(summary['curves']) == 9
    assert np.array(summary['rewards']).shape == (3, 5)
    assert summary['arguments']['num_pairs'] == 64
    assert {'safe_align', 'numpy'} <= set(summary['versions'])
    for name in ('param_diff', 'value_diff'):
        assert (tmp_path / f'one/{name}.png').read_bytes().startswith(b'\x89PNG')
        assert (tmp_path / f'one/{name}.pdf').read_bytes().startswith(b'%PDF')
    assert 'holds this run, finished' in run('one').err
    with pytest.raises(UserError, match='holds another run'):
        run('one', '--beta', '2')
    run('two', '--log_type', 'none')
    for name in ('curves.csv', 'param_diff.png', 'param_diff.pdf', 'value_diff.png', 'value_diff.pdf', 'README.md'):
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes(), name
    run('one', '--beta', '2', '--overwrite')
    assert json.loads((tmp_path / 'one/summary.json').read_text(encoding='utf-8'))['arguments']['beta'] == 2


def test_newtons_step_is_that_of_the_weights_at_hand():
    assert newton_step(np.array([[72.0]]), 2.0, 3)[0, 0] == 3  # 72 / (2 4 3)
