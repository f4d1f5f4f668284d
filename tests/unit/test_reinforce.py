"""REINFORCE under bounds as its stage builds it: gradients, bounds, baselines, and what a checkpoint brings back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from safe_align.algorithms import ppo_reward_shaping, reinforce_ci_lag
from safe_align.algorithms.group_advantages import pessimistic_rloo, rloo
from safe_align.bounds import student_t
from safe_align.checkpoint import load_newest, save_state
from safe_align.config import UserError
from safe_align.loop import take_step
from safe_align.models.policy import response_log_probs
from safe_align.tensors import segment_sum

K = 2


@pytest.fixture
def make(build):
    return lambda **options: build(
        reinforce_ci_lag, **{'num_samples_per_prompt': K, 'advantage': 'rloo', 'threshold': [-1.0], **options}
    )


def micros(collected) -> list:
    return [micro for step in collected.steps for micro in step]


def per_response(collected, values: str) -> torch.Tensor:
    """One number a response, in the order of (row, place in the round)."""
    found = []
    for micro in micros(collected):
        tokens = getattr(micro, values)
        count = torch.bincount(micro.batch.segments, minlength=micro.batch.num_sequences)
        found += (segment_sum(tokens, micro.batch.segments, micro.batch.num_sequences) / count).tolist()
    return torch.tensor(found)


def test_the_gradient_is_reinforce_s_with_leave_one_out_advantages_of_the_augmented_return(make, recording):
    """Against the definition, response by response: -mean_i A_i grad log pi(y_i)."""
    algorithm, batches, _ = make(
        per_device_train_batch_size=8, kl_coeff=0.0, lambda_init=0.7, lambda_lr=0.0, students_c1=2.0, fail_prob=0.2
    )
    rows = [row for micro in batches.step(0) for row in micro.rows]
    sampled = algorithm.rollouts.sample(rows, 0)
    scores = algorithm._scores([one.conversation for one in sampled])
    reward, cost = (scores[name].view(-1, K).double() for name in ('reward', 'cost'))
    prompts = cost.mean(1)
    kappa = 2 * student_t.margin(4, delta=0.2, low=0, high=0)[0] + student_t.margin(1000, delta=0.2, low=0, high=0)[0]
    expected = rloo(reward) - 0.7 * pessimistic_rloo(cost, kappa, float(prompts.mean()), float(prompts.std()))
    collected = algorithm.collect(0, batches.step(0))
    assert collected.metrics['train/kappa'] == pytest.approx(kappa)
    assert collected.metrics['train/cost_bound'] == pytest.approx(float(prompts.mean() + kappa * prompts.std()))
    take_step(algorithm, collected.steps[0])
    algorithm.policy.module.zero_grad()
    total = 0.0
    for micro in micros(collected):
        log_probs = response_log_probs(algorithm.policy, micro.batch)
        sums = segment_sum(log_probs, micro.batch.segments, micro.batch.num_sequences)
        total = (
            total
            - (
                sums
                * micro.advantages[
                    micro.batch.layout.offsets[:-1]
                    .new_tensor(np.searchsorted(micro.batch.segments.numpy(), np.arange(micro.batch.num_sequences)))
                    .long()
                ]
            ).sum()
            / 8
        )
    total.backward()
    again = torch.cat([p.grad.flatten() for p in algorithm.policy.module.parameters() if p.grad is not None])
    assert torch.allclose(algorithm.policy.gradient, again, atol=1e-6)
    assert sorted(per_response(collected, 'advantages').tolist()) == pytest.approx(
        sorted(expected.flatten().tolist()), abs=1e-5
    )


def test_the_first_ratio_is_exactly_1_and_a_second_update_on_the_same_responses_weighs_them(make):
    algorithm, batches, _ = make(per_device_train_batch_size=8, update_iters=2)
    collected = algorithm.collect(0, batches.step(0))
    first, second = (take_step(algorithm, step)[0] for step in collected.steps)
    assert first['train/ratio'] == 1.0
    assert second['train/ratio'] != 1.0


def test_multiplier_and_gradient_use_the_same_bound_of_the_same_costs(make):
    algorithm, batches, _ = make(lambda_lr=0.1, lambda_init=1.0)
    metrics = algorithm.collect(0, batches.step(0)).metrics
    moved = np.exp(0.1 * (metrics['train/cost_bound'] + 1.0))
    assert metrics['train/lambda'] == pytest.approx(moved, rel=1e-6)


@pytest.mark.parametrize('advantage', ['grpo', 'dr_grpo', 'reinforce_plus_plus'])
def test_every_other_advantage_is_centred_where_costs_are_taken_at_their_mean(make, advantage):
    algorithm, batches, _ = make(advantage=advantage, bound='mean')
    collected = algorithm.collect(0, batches.step(0))
    advantages = per_response(collected, 'advantages')
    assert float(advantages.sum()) == pytest.approx(0.0, abs=1e-4)
    assert float(advantages.abs().max()) > 0


def test_the_running_mean_leaves_its_own_round_out(make):
    algorithm, batches, _ = make(advantage='running_mean', num_samples_per_prompt=1)
    first = algorithm.collect(0, batches.step(0))
    mean = first.metrics['train/return']
    second = algorithm.collect(1, batches.step(1))
    own = second.metrics['train/return']
    assert float(per_response(second, 'advantages').mean()) == pytest.approx(own - mean, abs=1e-5)


def test_its_state_comes_back_from_a_checkpoint(make, tmp_path):
    algorithm, batches, _ = make(advantage='running_mean')
    algorithm.collect(0, batches.step(0))
    save_state(tmp_path, 1, 1, algorithm)
    expected = json.dumps(algorithm.state())
    other, _, _ = make(advantage='running_mean')
    load_newest(tmp_path, other, print)
    assert json.dumps(other.state()) == expected


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num_samples_per_prompt': 1}, 'compares the responses to a prompt'),
        ({'rloo': True, 'advantage': 'grpo'}, 'choose one'),
        ({'bound': 'empirical_bernstein'}, 'needs --range'),
        ({'bound': 'empirical_bernstein', 'range': [5.0, -5.0]}, '--range 5.0 -5.0: two .*, the lower first'),
        ({'range': [0.0, 1.0, 2.0]}, '--range 0.0 1.0 2.0: two finite numbers were expected'),
        ({'threshold': [0.0, 1.0]}, '2 numbers for 1 cost models'),
        ({'fail_prob': 1.0}, 'below 1'),
        ({'lambda_init': 2.0, 'lambda_max': 1.5}, '--lambda_init 2: is above --lambda_max 1.5'),
        ({'lambda_update': 'newton', 'kl_coeff': 0.0}, 'above 0'),
        ({'num_return_sequences': 2}, '--num_samples_per_prompt'),
    ],
)
def test_options_that_contradict_each_other(make, options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_no_round_has_one_prompt_alone_whose_costs_have_no_deviation(make, starter):
    _, batches, _ = make(train_datasets=[f'jsonl:5/-1:{starter / "train.jsonl"}'])
    assert batches.steps_per_epoch == 1  # of 4; the fifth is left out
    with pytest.raises(UserError, match='--train_datasets: 1 prompts; a round takes 2 or more'):
        make(train_datasets=[f'jsonl:1/-1:{starter / "train.jsonl"}'])


def test_several_costs_have_a_bound_and_a_multiplier_each(make, score_models):
    algorithm, batches, _ = make(
        cost_model_name_or_path=[str(score_models['cost'])] * 2, threshold=[-5.0, 5.0], lambda_lr=0.01
    )
    metrics = algorithm.collect(0, batches.step(0)).metrics
    assert metrics['train/lambda_1'] > 1 > metrics['train/lambda_2']
    assert metrics['train/cost_1'] == metrics['train/cost_2']


def test_shaped_rewards_are_the_reward_less_the_price_of_the_cost(build):
    algorithm, batches, _ = build(ppo_reward_shaping, lambda_init=0.3)
    metrics = algorithm.collect(0, batches.step(0)).metrics
    shaped = metrics['train/reward'] - 0.3 * metrics['train/cost']
    assert metrics['train/shaped_reward'] == pytest.approx(shaped, abs=1e-6)
    assert set(algorithm.engines) == {'actor', 'shaped_reward_critic'}
