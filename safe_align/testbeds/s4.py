"""Tables of a few prompts and a few responses, in which the best policy under a constraint has a closed form.

    max E r - beta KL(pi || reference)   s.t. E c <= d
    pi = reference exp((r - lambda c) / beta) / Z,   D(lambda) = beta E log E_reference exp((r - lambda (c - d)) / beta)

The dual D is convex, D' = d - E c and D'' = E Var(c) / beta; its least value over lambda >= 0 is the optimum, and where
that is at lambda > 0, E c = d. Prompts are equally likely. One lambda for all prompts keeps the average cost; one for
each prompt keeps each prompt's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

Array = NDArray[np.float64]


class Values(NamedTuple):
    """What a policy is worth, one number a prompt, (P,) each."""

    reward: Array
    cost: Array
    kl: Array
    rectified: Array
    """E max(0, c): harm of some responses that the harmlessness of others does not make up for."""


@dataclass(frozen=True)
class Table:
    """A problem of `P` prompts with `K` responses each.

    Args:
        reference: probabilities, (P, K).
        rewards: (P, K).
        costs: (P, K).
        beta: price of divergence.
        threshold: d, what the expected cost must not exceed.
    """

    reference: Array
    rewards: Array
    costs: Array
    beta: float
    threshold: float = 0.0

    def best_response(self, multiplier: ArrayLike) -> Array:
        """The policy that maximises E (r - lambda c) - beta KL, (P, K), for one lambda or one a prompt, (P,)."""
        return special.softmax(self._logits(multiplier), axis=1)

    def dual(self, multiplier: ArrayLike) -> float:
        """D(lambda), the mean over prompts; an upper limit of the value of every policy that keeps the constraint."""
        prices = np.broadcast_to(np.asarray(multiplier, float), len(self.costs))
        free = self.beta * special.logsumexp(self._logits(multiplier), axis=1) + prices * self.threshold
        return float(free.mean())

    def optimum(self) -> float:
        """The least lambda >= 0 whose best response keeps the constraint on average.

        Raises:
            ValueError: no policy keeps it.
        """
        return self._root(self)

    def optimum_each(self) -> Array:
        """The same prompt by prompt, each with a constraint of its own: (P,).

        Raises:
            ValueError: no policy keeps it.
        """
        rows = [[n] for n in range(len(self.costs))]
        tables = [Table(self.reference[n], self.rewards[n], self.costs[n], self.beta, self.threshold) for n in rows]
        return np.array([self._root(table) for table in tables])

    def values(self, policy: Array) -> Values:
        """What a policy (P, K) is worth on each prompt."""
        log_ratio = np.log(np.maximum(policy, np.finfo(float).tiny)) - np.log(self.reference)
        parts = (self.rewards, self.costs, log_ratio, np.maximum(self.costs, 0.0))
        return Values(*((policy * part).sum(1) for part in parts))

    def _logits(self, multiplier: ArrayLike) -> Array:
        prices = np.broadcast_to(np.asarray(multiplier, float), len(self.costs))[:, None]
        logits: Array = np.log(self.reference) + (self.rewards - prices * self.costs) / self.beta
        return logits

    @staticmethod
    def _root(table: Table) -> float:
        if table.costs.min(1).mean() >= table.threshold:
            raise ValueError(f'threshold {table.threshold}: no policy has an expected cost below it')

        def slack(multiplier: float) -> float:
            return table.threshold - float(table.values(table.best_response(multiplier)).cost.mean())

        high = 1.0
        if slack(0.0) >= 0:
            return 0.0
        while slack(high) < 0:
            high *= 2
        return float(optimize.brentq(slack, 0.0, high, xtol=1e-14, rtol=1e-14))


def four_arms(beta: float, threshold: float = 0.0) -> Table:
    """One prompt and four responses, of which the best rewarded are the costliest."""
    return Table(
        np.array([[0.4, 0.3, 0.2, 0.1]]), np.array([[0.0, 1.0, 2.0, 3.0]]), np.array([[-1.0, -0.5, 0.5, 2.0]]),
        beta, threshold,
    )  # fmt: skip


def two_prompts(beta: float = 0.5) -> Table:
    """Two prompts of which the second has nothing but harmless responses.

    With the constraint on the average, the harmlessness of the second pays for the harm of the first, which stays
    unsafe; arXiv:2410.19933 calls it safety compensation.
    """
    return Table(
        np.full((2, 3), 1 / 3), np.array([[0.0, 2.0, 3.0], [0.0, 0.5, 1.0]]),
        np.array([[-1.0, 1.0, 2.0], [-1.0, -0.8, -0.5]]), beta,
    )  # fmt: skip
