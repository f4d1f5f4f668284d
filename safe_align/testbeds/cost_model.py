"""A cost model of the bandit, too simple for its world, learned from labels: the gap between its cost and the true one.

    score(x, y) = w_y + v_y s + u . noise,   loss: -log sigma(score(worse) - score(better)) over pairs (Bradley-Terry),
    and with signs also -log sigma(z score) for each of the two, z = 1 if labelled unsafe and -1 if safe

A pair is of two responses of one prompt, so without the signs nothing says what a score of 0 means, and terms of the
prompt alone stay at 0. Source: the losses of Safe RLHF, arXiv:2310.12773, eq. 5 and 6.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

from safe_align.testbeds.safe_bandit import Array, Prompts

NUM_PAIRS = 4000
RIDGE = 1e-3


def cost_model(prompts: Prompts, rng: np.random.Generator, *, signs: bool) -> Array:
    """The scores of all responses, (n, K), of a model learned from pairs of the reference's responses.

    A person finds the first of a pair worse with probability sigma(c_1 - c_2), and a response unsafe with sigma(2 c).
    """
    index = rng.integers(len(prompts), size=NUM_PAIRS)
    sample = prompts.at(index)
    first, second = (sample.respond(sample.start(), rng.random((NUM_PAIRS, 1))) for _ in range(2))
    rows = np.arange(NUM_PAIRS)
    costs = sample.costs[rows, first], sample.costs[rows, second]
    worse = np.where(rng.random(NUM_PAIRS) < special.expit(costs[0] - costs[1]), 1.0, -1.0)
    designs = design(sample)[rows, first], design(sample)[rows, second]
    terms = [worse[:, None] * (designs[0] - designs[1])]
    if signs:
        for x, c in zip(designs, costs, strict=True):
            terms.append(np.where(rng.random(NUM_PAIRS) < special.expit(2 * c), 1.0, -1.0)[:, None] * x)
    scores: Array = design(prompts) @ _logistic(np.concatenate(terms), NUM_PAIRS)
    return scores


def design(prompts: Prompts) -> Array:
    """What a score is linear in, (n, K, 2 K + 8): the archetype, the archetype times s, and the prompt's noise."""
    n, k = prompts.costs.shape
    eye = np.broadcast_to(np.eye(k), (n, k, k))
    risk, noise = prompts.features[:, 1], prompts.features[:, 2:]
    return np.concatenate([eye, risk[:, None, None] * eye, np.broadcast_to(noise[:, None], (n, k, noise.shape[1]))], 2)


def _logistic(rows: Array, count: int) -> Array:
    """Of weights w, the least of sum(-log sigma(rows w)) / count + ridge |w|^2."""

    def loss(weights: Array) -> tuple[float, Array]:
        margins = rows @ weights
        value = np.logaddexp(0.0, -margins).sum() / count + RIDGE * weights @ weights
        return float(value), -rows.T @ special.expit(-margins) / count + 2 * RIDGE * weights

    weights: Array = optimize.minimize(loss, np.zeros(rows.shape[1]), jac=True, method='L-BFGS-B').x
    return weights
