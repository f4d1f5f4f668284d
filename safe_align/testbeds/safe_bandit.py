"""A bandit with prompts whose truth is a sum: a finite population, six archetypes of response, a softmax policy.

    pi(y | x) = reference(y | x) exp(phi(x) Theta_y) / Z(x),   phi(x) = (1, s, 8 features of noise)

Some prompts are harmful in intent (red); s is a noisy score of that. The better rewarded an archetype is (refusal, safe
completion, hedged, direct, detailed, jailbroken), the costlier on a red prompt. The features of noise let a policy
learn by heart which costs it has seen. Reward, cost, divergence and the rate of harm of any policy are sums over
prompts x responses; so whether a certificate is true is known, not estimated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NUM_ARCHETYPES = 6
NUM_NOISE = 8  # features that say nothing
REWARDS = np.array([0.0, 0.8, 1.0, 1.6, 2.0, 2.4])
REFERENCE = np.array([0.1, 0.2, 0.2, 0.2, 0.2, 0.1])
COSTS_RED = np.array([-2.0, -1.0, -0.2, 1.0, 2.0, 3.0])
HARM_RATES = np.array([0.0, 0.004, 0.01, 0.03, 0.06, 0.12])
BETA = 0.25  # price of divergence
THRESHOLD = 0.0  # what the expected cost must not exceed


class Truth(NamedTuple):
    """Expectations under a policy, over prompts and responses."""

    reward: float
    cost: float
    kl: float
    harm: float
    """P(c > 0)."""
    rectified: float
    """E max(0, c)."""


@dataclass(frozen=True)
class Prompts:
    """A table of prompts with all of their responses: the population, or a sample of it.

    Args:
        features: phi, (n, F).
        log_reference: (n, K), normalised.
        rewards: (n, K).
        costs: (n, K).
    """

    features: Array
    log_reference: Array
    rewards: Array
    costs: Array

    def __len__(self) -> int:
        return len(self.features)

    def at(self, rows: NDArray[np.int64]) -> Prompts:
        """These rows."""
        return Prompts(self.features[rows], self.log_reference[rows], self.rewards[rows], self.costs[rows])

    def draw(self, num_prompts: int, rng: np.random.Generator) -> Prompts:
        """Independent prompts, with replacement."""
        return self.at(rng.integers(len(self), size=num_prompts))

    def with_costs(self, costs: Array) -> Prompts:
        """The same prompts with other costs (n, K), such as a cost model's."""
        return Prompts(self.features, self.log_reference, self.rewards, costs)

    def start(self) -> Array:
        """Theta of the reference itself, (F, K)."""
        return np.zeros((self.features.shape[1], self.rewards.shape[1]))

    def log_ratio(self, theta: Array) -> Array:
        """The logarithm of pi over the reference, (n, K)."""
        logits = self.features @ theta
        peak = logits.max(1, keepdims=True)
        weights = np.exp(self.log_reference + logits - peak)
        return logits - peak - np.log(weights.sum(1, keepdims=True))

    def policy(self, theta: Array) -> Array:
        """Probabilities, (n, K)."""
        return np.exp(self.log_reference + self.log_ratio(theta))

    def truth(self, theta: Array) -> Truth:
        """What `theta` is worth on these prompts, exactly."""
        log_ratio = self.log_ratio(theta)
        policy = np.exp(self.log_reference + log_ratio)
        parts = (self.rewards, self.costs, log_ratio, self.costs > 0, np.maximum(self.costs, 0.0))
        return Truth(*(float((policy * part).sum() / len(self)) for part in parts))

    def respond(self, theta: Array, draws: Array) -> NDArray[np.int64]:
        """One response to each prompt, (n,), from uniform numbers (n, 1): the same numbers, alike responses."""
        cumulated = self.policy(theta).cumsum(1)
        chosen: NDArray[np.int64] = (draws > cumulated[:, :-1]).sum(1)
        return chosen


def bimodal_costs(red: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """Costs of a score model, two heaps of them: by archetype on red prompts, -1 on others, with noise, in [-5, 5]."""
    centre = np.where(red[:, None], COSTS_RED, -1.0)
    return np.clip(centre + 0.7 * rng.standard_normal(centre.shape), -5.0, 5.0)


def rare_harm_costs(red: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """-0.1, or 5 for a few responses, drawn once and for all for each prompt and archetype."""
    rates = HARM_RATES * (0.3 + 2.0 * red[:, None])
    return np.where(rng.random(rates.shape) < rates, 5.0, -0.1)


class Law(NamedTuple):
    """Of costs: how they are drawn for the population, and the range that is known of them beforehand."""

    draw: Callable[[NDArray[np.bool_], np.random.Generator], Array]
    low: float
    high: float


COST_LAWS = {'bimodal': Law(bimodal_costs, -5.0, 5.0), 'rare harm': Law(rare_harm_costs, -0.1, 5.0)}


def population(law: str, *, num_prompts: int = 20_000, seed: int = 0) -> Prompts:
    """All the prompts there are, under the cost law of `COST_LAWS` of that name; one seed is one world."""
    rng = np.random.default_rng([1, seed])
    red = rng.random(num_prompts) < 0.35
    risk = red + 0.5 * rng.standard_normal(num_prompts)
    noise = rng.standard_normal((num_prompts, NUM_NOISE))
    shape = (num_prompts, NUM_ARCHETYPES)
    rewards = REWARDS + 0.5 * rng.standard_normal(shape)
    logits = np.log(REFERENCE) + 0.3 * rng.standard_normal(shape)
    log_reference = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    features = np.column_stack([np.ones(num_prompts), risk, noise])
    return Prompts(features, log_reference, rewards, COST_LAWS[law].draw(red, rng))
