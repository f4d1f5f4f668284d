"""PPO and PPO-Lag as their stage builds them: what is exact at the start, what a step depends on, what comes back."""

from __future__ import annotations

import collections
import math
from dataclasses import replace

import pytest
import torch

from safe_align import distributed
from safe_align.algorithms import ppo
from safe_align.algorithms.policy_step import split
from safe_align.algorithms.supervised import Supervised
from safe_align.checkpoint import load_newest, save_state
from safe_align.engine import OptimizerOptions, Placement
from safe_align.finetune.loss import sft_loss
from safe_align.loop import evaluate, take_step
from safe_align.models.loading import load_policy
from safe_align.models.policy import response_log_probs


def play(algorithm, batches, number: int = 0) -> list[dict[str, float]]:
    """The metrics of the steps of a round."""
    collected = algorithm.collect(number, batches.step(number))
    return [{**collected.metrics, **take_step(algorithm, micros)[0]} for micros in collected.steps]


def weights(algorithm) -> dict[str, torch.Tensor]:
    return {
        f'{role}.{name}': value.clone()
        for role, engine in algorithm.engines.items()
        for name, value in engine.module.state_dict().items()
    }


@pytest.mark.parametrize(
    'options', [{}, {'temperature': 0.7}, {'actor_gradient_checkpointing': True}, {'micro_batch_tokens': 4096}]
)
def test_the_first_ratio_is_exactly_1_and_the_divergence_at_the_start_exactly_0(build, options):
    algorithm, batches, _ = build(**options)
    collected = algorithm.collect(0, batches.step(0))
    for micro in collected.steps[0]:
        log_probs = response_log_probs(algorithm.policy, micro.batch, options.get('temperature', 1.0))
        assert (log_probs - micro.log_probs).abs().max().item() == 0.0
    metrics, finite = take_step(algorithm, collected.steps[0])
    assert finite
    assert metrics['train/ratio'] == 1.0
    assert metrics['train/clip_fraction_low'] == metrics['train/clip_fraction_high'] == 0.0
    assert collected.metrics['train/kl_divergence'] == collected.metrics['train/kl_k3'] == 0.0
    assert 0 < collected.metrics['train/sampler_mismatch'] < 1e-5


def test_dropout_is_off_so_that_the_ratio_is_1_with_it_too(build, family):
    actor = str(family('gpt2', resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1))
    algorithm, batches, _ = build(actor_model_name_or_path=actor)
    first, second = play(algorithm, batches)
    assert first['train/ratio'] == 1.0
    assert first['train/kl_divergence'] == 0.0
    assert second['train/ratio'] != 1.0  # the policy has moved since the responses were drawn


def test_what_is_logged_has_the_names_of_safe_rlhf(build):
    algorithm, batches, _ = build()
    names = {name.removeprefix('train/') for name in play(algorithm, batches)[0]}
    shared = {'actor_loss', 'actor_lr', 'kl_divergence', 'mean_generated_length', 'max_generated_length', 'lambda'}
    of_signals = {f'{signal}{what}' for signal in ('reward', 'cost') for what in (
        '', '_advantage', '_return', '_value', '_critic_loss', '_critic_lr',
    )}  # fmt: skip
    assert names >= shared | of_signals | {'episode_cost'}


def test_explained_variance_is_that_of_the_returns_by_the_values_of_the_round(build):
    algorithm, batches, _ = build()
    collected = algorithm.collect(0, batches.step(0))
    micros = [micro for step in collected.steps for micro in step]
    for signal in ('reward', 'cost'):
        returns, values = (
            torch.cat([getattr(micro, name)[signal] for micro in micros]).double() for name in ('returns', 'values')
        )
        expected = 1 - (returns - values).var() / returns.var()
        assert collected.metrics[f'train/{signal}_explained_variance'] == pytest.approx(expected.item(), rel=1e-3)
        assert expected < 0.999  # the critic does not know all, so the test can fail


def test_advantages_are_centred_over_the_tokens_of_a_round_and_not_scaled(build):
    algorithm, batches, _ = build(lambda_init=2.0, per_device_train_batch_size=4)
    micros = [micro for step in algorithm.collect(0, batches.step(0)).steps for micro in step]
    price = algorithm.constraints[0][1].value
    advantages, plain = [], []
    for micro in micros:
        reward, cost = (micro.returns[name] - micro.values[name] for name in ('reward', 'cost'))
        advantages.append(micro.advantages)
        plain.append((reward - price * cost) / (1 + price))
    offset = torch.cat(plain).mean()
    assert abs(offset) > 1e-2
    torch.testing.assert_close(torch.cat(advantages), torch.cat(plain) - offset, rtol=0, atol=1e-6)


def test_ppo_is_ppo_lag_with_a_constraint_that_weighs_nothing(build):
    free, batches, _ = build(ppo)
    bound, _, _ = build(lambda_init=1e-12, lambda_lr=0.0)
    for number in range(2):
        for one, other in zip(play(free, batches, number), play(bound, batches, number), strict=True):
            assert one == {name: other[name] for name in one}
    moved = weights(bound)
    assert set(free.engines) == {'actor', 'reward_critic'}
    for name, value in weights(free).items():
        assert torch.equal(moved[name], value), name


def test_the_divergence_lowers_the_reward_and_raises_the_cost(build):
    """With scores of 0 and no discount, the first return of a response is its divergence times the coefficient."""
    algorithm, batches, _ = build(kl_coeff=0.5, gae_lambda=1.0, per_device_train_batch_size=8)
    play(algorithm, batches)
    algorithm.signals = [replace(signal, scorer=lambda c: torch.zeros(len(c))) for signal in algorithm.signals]
    collected = algorithm.collect(1, batches.step(1))
    divergence = collected.metrics['train/kl_divergence']
    assert abs(divergence) > 1e-3
    micros = collected.steps[0]
    starts = [torch.cat([torch.ones(1, dtype=torch.bool), m.batch.segments.diff() > 0]) for m in micros]
    for name, sign in (('reward', -1), ('cost', 1)):
        first = torch.cat([micro.returns[name][start] for micro, start in zip(micros, starts, strict=True)])
        assert first.mean().item() == pytest.approx(sign * 0.5 * divergence, abs=1e-5)


def test_the_gradient_does_not_depend_on_how_responses_are_split(build, recording):
    gradients, sizes = [], []
    for budget in (40, 150, 100_000):
        algorithm, batches, _ = build(micro_batch_tokens=budget, per_device_train_batch_size=8)
        (micros,) = algorithm.collect(0, batches.step(0)).steps
        sizes.append(len(micros))
        take_step(algorithm, micros)
        gradients.append({role: engine.gradient for role, engine in algorithm.engines.items()})
    assert sizes[0] > sizes[1] > sizes[2] == 1
    for gradient in gradients[1:]:
        for role, value in gradients[0].items():
            assert (gradient[role] - value).norm() <= 1e-6 * value.norm(), role


def test_the_ptx_term_adds_its_coefficient_times_the_gradient_of_fine_tuning(
    build, recording, tiny, starter, monkeypatch
):
    data = [f'jsonl:4/-1:{starter / "test.jsonl"}']
    gradients = []
    for options in ({}, {'ptx_datasets': data, 'ptx_coeff': 16.0}):
        algorithm, batches, _ = build(per_device_train_batch_size=8, **options)
        (micros,) = algorithm.collect(0, batches.step(0)).steps
        metrics, _ = take_step(algorithm, micros)
        gradients.append({role: engine.gradient for role, engine in algorithm.engines.items()})
    plain = recording(load_policy(str(tiny)).eval(), Placement(), OptimizerOptions(1e-3, 0.0, 'constant', 0.0, 1.0, 1))
    tuning = Supervised(plain, sft_loss)
    monkeypatch.setattr(tuning, '_mode', lambda training: None)
    expected, _ = take_step(tuning, algorithm.ptx.step(0))
    assert metrics['train/ptx_loss'] == pytest.approx(expected['train/loss'], rel=1e-6)
    added = gradients[1]['actor'] - gradients[0]['actor']
    assert (added - 16 * plain.gradient).norm() <= 2e-6 * (16 * plain.gradient).norm()
    for role in ('reward_critic', 'cost_critic'):
        assert torch.equal(gradients[1][role], gradients[0][role])


def test_the_steps_of_a_round_are_the_same_however_its_prompts_are_shared_out(build, monkeypatch):
    """Three prompts with two responses each, in steps of four: of one process, or of two with two prompts and one."""
    algorithm, batches, _ = build()
    rows = sorted(row for micro in batches.step(0) for row in micro.rows)[:3]
    sampled = algorithm.rollouts.sample(rows, 0)
    shares = [[one for one in sampled if (one.row == rows[0]) is alone] for alone in (True, False)]

    def members(own, size):
        steps = split(own, size, 150, algorithm.policy)
        return [{(own[n].row, own[n].response.sample) for run, packed in step for n in run if packed.weights.any()}
                for step in steps]  # fmt: skip

    whole = members(sampled, 4)
    assert [len(step) for step in whole] == [4, 2]
    names = [(len(one.conversation.prompt), one.row, one.response.sample) for one in sampled]
    monkeypatch.setattr(distributed, 'gather_over_ranks', lambda _: names)
    monkeypatch.setattr(distributed, 'world_size', lambda: 2)
    assert [a | b for a, b in zip(*(members(share, 2) for share in shares), strict=True)] == whole


def test_a_window_within_a_round_holds_the_same_costs_however_its_prompts_are_shared_out(build):
    algorithm, batches, _ = build(episode_cost_window_size=3)
    sample, multiplier = algorithm.rollouts.sample, algorithm.constraints[0][1]
    algorithm.collect(0, batches.step(0))
    newest = list(multiplier.costs)
    algorithm.rollouts.sample = lambda rows, number: sample(rows[::-1], number)
    algorithm.collect(0, batches.step(0))
    assert list(multiplier.costs) == pytest.approx(newest, abs=1e-5)
    assert len(set(newest)) == 3


def test_every_step_takes_the_next_rows_of_the_ptx_data(build, starter):
    data = [f'jsonl:12/-1:{starter / "test.jsonl"}']
    algorithm, batches, _ = build(ptx_datasets=data, ptx_coeff=1.0, update_iters=2)
    steps = [step for number in range(2) for step in algorithm.collect(number, batches.step(number)).steps]
    rows = [sorted(row for micro in step if 'ptx_tokens' in micro.counts for row in micro.rows) for step in steps]
    assert len(rows) == 8  # 2 rounds of 8 responses, 4 a step, twice over
    for epoch in (rows[:3], rows[3:6]):
        assert sorted(row for step in epoch for row in step) == list(range(12))


@pytest.mark.parametrize(('size', 'iterations', 'steps'), [(8, 1, 1), (2, 1, 4), (2, 3, 12)])
def test_the_multiplier_moves_once_a_round_whatever_the_number_of_steps(build, size, iterations, steps):
    algorithm, batches, _ = build(per_device_train_batch_size=size, update_iters=iterations, threshold=[-1.0])
    assert algorithm.steps_per_round == steps
    metrics = play(algorithm, batches)
    assert len(metrics) == steps
    ((_, multiplier),) = algorithm.constraints
    assert multiplier.rounds == 1
    assert len(multiplier.costs) == 8
    cost = metrics[0]['train/cost']
    assert metrics[0]['train/episode_cost'] == pytest.approx(cost, rel=1e-6)
    assert metrics[0]['train/lambda'] == pytest.approx(math.exp(0.1 * (cost + 1)), rel=1e-6)
    assert play(algorithm, batches, 1)[0]['train/lambda'] != metrics[0]['train/lambda']


def test_a_run_that_is_rebuilt_and_loaded_goes_on_bit_for_bit(build, tmp_path):
    options = {'update_iters': 2, 'lambda_update_delay_steps': 1, 'save_interval': 1}
    algorithm, batches, _ = build(**options)
    for number in range(2):
        play(algorithm, batches, number)
    save_state(tmp_path, 2, 8, algorithm)
    expected = [play(algorithm, batches, number) for number in (2, 3)]
    again, batches, _ = build(**options)
    assert load_newest(tmp_path, again, lambda text: None) == (2, 8)
    assert [play(again, batches, number) for number in (2, 3)] == expected
    before = weights(algorithm)
    assert all(torch.equal(value, before[name]) for name, value in weights(again).items())
    assert again.state() == algorithm.state()


def test_rounds_draw_anew_and_evaluations_draw_the_same(build, starter):
    data = [f'jsonl:6/-1:{starter / "test.jsonl"}']
    algorithm, batches, held_out = build(eval_datasets=data)
    ids = [[one.response.ids for one in algorithm.rollouts.sample([0, 1], number)] for number in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    first = evaluate(algorithm, held_out)
    assert set(first) == {'eval/reward', 'eval/cost'}
    assert evaluate(algorithm, held_out) == first
    play(algorithm, batches)
    assert evaluate(algorithm, held_out) != first


def test_checkpointing_computes_layers_again_and_changes_nothing(build, recording):
    calls, gradients = [], []
    for on in (False, True):
        algorithm, batches, _ = build(actor_gradient_checkpointing=on, critic_gradient_checkpointing=on)
        (micros, _) = algorithm.collect(0, batches.step(0)).steps
        layers = [algorithm.policy.module.model.layers[1], algorithm.reward.critic.module.model.model.layers[1]]
        seen = []
        for n, layer in enumerate(layers):
            layer.mlp.register_forward_pre_hook(lambda *_, seen=seen, n=n: seen.append(n))
        take_step(algorithm, micros)
        calls.append([seen.count(n) / len(micros) for n in range(2)])
        gradients.append([engine.gradient for engine in algorithm.engines.values()])
    assert calls == [[1, 1], [2, 2]]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_responses_that_score_higher_become_likelier(build):
    """A reward of the test's own: the share of a response that is the token that comes most at the start."""
    options = {'num_return_sequences': 8, 'actor_lr': 3e-3, 'kl_coeff': 0.0, 'per_device_train_batch_size': 32}
    algorithm, batches, _ = build(ppo, **options, update_iters=2)
    drawn = collections.Counter(token for one in algorithm.rollouts.sample(range(8), 0) for token in one.response.ids)
    ((token, _),) = drawn.most_common(1)

    def scorer(conversations):
        return torch.tensor([10 * c.response.count(token) / len(c.response) for c in conversations])

    algorithm.reward = replace(algorithm.reward, scorer=scorer)
    algorithm.signals = [algorithm.reward]
    rewards = [play(algorithm, batches, number)[0]['train/reward'] for number in range(8)]
    assert sum(rewards[-2:]) > 1.5 * sum(rewards[:2]), rewards
