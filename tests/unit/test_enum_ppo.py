"""PPO, PPO-Lag and shaped rewards against the exact gradient of what they maximise, over all answers of EnumLM.

The loss is a mean over tokens, so its gradient is -grad J / E[tokens].
"""

from __future__ import annotations

import pytest
import torch
from enum_rounds import Listing, collect, distance, exact, gradient

from safe_align.testbeds.enum_lm import divergence, enum_lm, expectation, prefix_values, tilted

BETA, PRICE, EXACT = 0.3, 1.3, 1e-10


@pytest.fixture(scope='module')
def world():
    return enum_lm(2)


def signal(world, score: torch.Tensor, sign: int, temperature: float = 1.0) -> torch.Tensor:
    """Rewards of tokens: the divergence at each, the score at the last: (X, Y, L)."""
    log_ratio = world.policy.token_log_probs(temperature) - world.reference.token_log_probs(temperature)
    rewards = sign * BETA * log_ratio.detach()
    last = torch.nn.functional.one_hot(world.answers.lengths - 1, world.answers.max_tokens)
    return rewards + last * score[..., None]


def critics(world, right: bool, cost_sign: int = 1, temperature: float = 1.0) -> dict[str, torch.Tensor]:
    """Tables of values: the exact ones, or any."""
    if right:
        tokens = {'reward': signal(world, world.reward, -1, temperature)}
        tokens['cost'] = signal(world, world.cost, cost_sign, temperature)
        return {name: prefix_values(world.policy, one, temperature) for name, one in tokens.items()}
    draw = torch.Generator().manual_seed(1)
    shape = (2, world.answers.num_prefixes)
    return {name: torch.randn(shape, dtype=torch.float64, generator=draw) for name in ('reward', 'cost')}


def maximised(world, reward: float, cost: float, kl: float, temperature: float = 1.0) -> torch.Tensor:
    log_probs = world.policy.log_probs(temperature)
    scores = reward * world.reward - cost * world.cost
    return expectation(log_probs, scores) - kl * divergence(log_probs, world.reference.log_probs(temperature))


def ascent(algorithm, world, temperature: float = 1.0) -> torch.Tensor:
    """The gradient of a whole round, as one of what is maximised."""
    length = expectation(world.policy.log_probs(temperature), world.answers.lengths.double())
    (step,) = collect(algorithm).steps
    return -gradient(algorithm, step) * length.detach()


CASES = {
    'ppo': ('ppo', {}, (1, 0, BETA)),
    'ppo-lag': ('ppo_lag', {'lambda_init': PRICE}, (1 / (1 + PRICE), PRICE / (1 + PRICE), BETA)),
    'ppo-lag, not divided': ('ppo_lag', {'lambda_init': PRICE, 'lambda_normalize': 'none'}, (1, PRICE, BETA)),
    'shaped': ('ppo_reward_shaping', {'lambda_init': PRICE}, (1, PRICE, BETA)),
}


@pytest.mark.parametrize('temperature', [1.0, 0.7])
@pytest.mark.parametrize(('stage', 'options', 'weights'), CASES.values(), ids=CASES)
def test_with_lambda_1_the_gradient_is_exact_whatever_the_critics_say(
    world, enum_round, stage, options, weights, temperature
):
    listing = Listing.of(world, temperature=temperature)
    algorithm = enum_round(stage, listing, critics(world, right=False), gae_lambda=1.0, **options)
    found = ascent(algorithm, world, temperature)
    expected = exact(maximised(world, *weights, temperature), world.policy)
    assert distance(found, expected) < EXACT
    assert expected.abs().max() > 0.01


WRONG = {
    'the sign of the divergence': (1 / (1 + PRICE), PRICE / (1 + PRICE), -BETA),
    'the sign of the cost': (1 / (1 + PRICE), -PRICE / (1 + PRICE), BETA),
    'no 1 + lambda': (1, PRICE, BETA),
    'the divergence in the reward alone, and yet divided': (1 / (1 + PRICE), PRICE / (1 + PRICE), BETA / (1 + PRICE)),
    'half the divergence in each': (1 / (1 + PRICE), PRICE / (1 + PRICE), BETA / 2),
}


def test_every_other_objective_is_told_apart(world, enum_round):
    algorithm = enum_round('ppo_lag', Listing.of(world), critics(world, False), gae_lambda=1.0, lambda_init=PRICE)
    found = ascent(algorithm, world)
    assert distance(found, exact(maximised(world, *CASES['ppo-lag'][2]), world.policy)) < EXACT
    for name, weights in WRONG.items():
        assert distance(found, exact(maximised(world, *weights), world.policy)) > 1e-3, name
    log_probs, reference = world.policy.log_probs(), world.reference.log_probs()
    forward = maximised(world, *CASES['ppo-lag'][2][:2], 0) - BETA * divergence(reference, log_probs)
    assert distance(found, exact(forward, world.policy)) > 1e-3


@pytest.mark.parametrize('gae_lambda', [0.0, 0.95])
@pytest.mark.parametrize('normalize', ['one_plus_lambda', 'none'])
def test_below_lambda_1_it_is_exact_with_exact_critics_and_they_then_have_nothing_to_learn(
    world, enum_round, normalize, gae_lambda
):
    listing, divided = Listing.of(world), normalize == 'one_plus_lambda'
    options = {'lambda_init': PRICE, 'lambda_normalize': normalize, 'gae_lambda': gae_lambda}
    expected = exact(maximised(world, *CASES['ppo-lag' if divided else 'ppo-lag, not divided'][2]), world.policy)
    algorithm = enum_round('ppo_lag', listing, critics(world, True, int(divided)), **options)
    assert distance(ascent(algorithm, world), expected) < EXACT
    for one in algorithm.signals:
        assert one.critic.gradient.abs().max() < EXACT
    algorithm = enum_round('ppo_lag', listing, critics(world, False), **options)
    assert distance(ascent(algorithm, world), expected) > 1e-3
    for one in algorithm.signals:
        assert one.critic.gradient.abs().max() > 1e-3


def test_the_metrics_of_a_round_are_the_exact_divergence_and_entropy(world, enum_round):
    metrics = collect(enum_round('ppo', Listing.of(world), critics(world, False))).metrics
    log_probs = world.policy.log_probs()
    expected = divergence(log_probs, world.reference.log_probs()).item()
    assert metrics['train/kl_divergence'] == pytest.approx(expected, abs=EXACT)
    assert metrics['train/kl_k3'] == pytest.approx(expected, abs=EXACT)
    entropy = -expectation(log_probs, log_probs) / expectation(log_probs, world.answers.lengths.double())
    assert metrics['train/entropy'] == pytest.approx(entropy.item(), abs=1e-6)  # of float32 logits
    backward = divergence(world.reference.log_probs(), log_probs).item()
    assert abs(backward - expected) > 0.01


def test_a_second_update_follows_the_clipped_surrogate_of_every_prefix_and_token(world, enum_round):
    """Of advantages Q - V under the policy that drew, eq. 7 of arXiv:1707.06347, written out over the tree."""
    answers, old = world.answers, world.policy.logits.detach().clone()
    scores, node = (world.reward - PRICE * world.cost) / (1 + PRICE), torch.arange(answers.num_prefixes)
    values = prefix_values(world.policy, signal(world, scores, -1))
    probs = old.softmax(-1)
    after = torch.cat([values, scores[:, answers.num_prefixes :]], 1)[:, 4 * node[:, None] + 1 + torch.arange(4)]
    after = torch.cat([after, scores[:, node, None]], -1)
    log_ratio = probs.log() - world.reference.logits.log_softmax(-1)
    advantages = after - BETA * log_ratio - values[..., None]
    mass = torch.zeros_like(values)
    through = world.policy.log_probs().detach().exp()[..., None] * answers.mask
    mass.index_add_(1, answers.prefixes.flatten(), through.flatten(1))
    weights = mass[..., None] * probs / through.sum((1, 2)).mean()
    algorithm = enum_round(
        'ppo_lag', Listing.of(world), critics(world, True), lambda_init=PRICE, gae_lambda=0.0, update_iters=2
    )
    _, step = collect(algorithm).steps
    noise = torch.randn(old.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    try:
        world.policy.logits.data += 0.3 * noise
        found = gradient(algorithm, step)
        ratio = world.policy.logits.softmax(-1) / probs
        free, clipped = ratio * advantages, ratio.clamp(0.8, 1.2) * advantages
        surrogates = [-(weights * one).sum((1, 2)).mean() for one in (torch.minimum(free, clipped), free, clipped)]
        expected, *others = (exact(one, world.policy) for one in surrogates)
    finally:
        world.policy.logits.data.copy_(old)
    assert distance(found, expected) < EXACT
    assert min(distance(found, other) for other in others) > 1e-3


@pytest.mark.parametrize('normalize', ['one_plus_lambda', 'none'])
def test_the_fixed_point_is_that_of_beta_times_1_plus_lambda_where_it_divides(world, enum_round, normalize):
    """Reward and cost share the 1 + lambda, the divergence does not; the optimum is tilted by (r - lambda c) / beta."""
    scores = world.reward - PRICE * world.cost
    optima = {'none': BETA, 'one_plus_lambda': BETA * (1 + PRICE)}
    found = {}
    for name, beta in optima.items():
        here = enum_lm(2)
        here.policy.logits.data.copy_(tilted(world.reference, scores, beta)[0].logits.detach())
        options = {'lambda_init': PRICE, 'lambda_normalize': normalize, 'gae_lambda': 1.0}
        found[name] = ascent(enum_round('ppo_lag', Listing.of(here), critics(here, False), **options), here).abs().max()
    assert found.pop(normalize) < EXACT
    assert found.popitem()[1] > 1e-3
