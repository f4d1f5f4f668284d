"""Empirical Bernstein: a range and the variance of the costs; narrower than Hoeffding's once n is large.

    U = m + sqrt(2 V ln(2 / delta) / n) + 7 (high - low) ln(2 / delta) / (3 (n - 1)),   V the variance with n - 1

Source: Maurer and Pontil, arXiv:0907.3740, theorem 4. Assumes independent prompts and costs within [low, high].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds._checked import Array, as_row, from_unit, unit_rows

ASSUMES = 'independent prompts from the distribution that the certificate names, and costs within [low, high]'
TARGET = 'mean'
FINITE_SAMPLE = True
NEEDS_RANGE = True
MIN_COSTS = 2


def upper_bound(costs: ArrayLike, *, delta: float, low: float, high: float) -> float:
    """The bound from `costs` (n,), n >= 2, in their unit, and never above `high`.

    Raises:
        UserError: costs of another shape, not finite or outside [low, high]; a range or a delta that is none.
    """
    return float(upper_bounds(as_row(costs), delta=delta, low=low, high=high)[0])


def upper_bounds(costs: ArrayLike, *, delta: float, low: float, high: float) -> Array:
    """The same of many studies at once: (S, n) -> (S,)."""
    x = unit_rows(costs, delta=delta, low=low, high=high, at_least=MIN_COSTS)
    n, log_term = x.shape[1], math.log(2 / delta)
    spread = np.sqrt(2 * log_term / n * x.var(1, ddof=1))
    return from_unit(x.mean(1) + spread + 7 * log_term / (3 * (n - 1)), low=low, high=high)


def margin(n: int, *, delta: float, low: float, high: float) -> tuple[float, float]:
    """The bound as mean + first x standard deviation + second, which training takes the gradient of."""
    log_term = math.log(2 / delta)
    return math.sqrt(2 * log_term / n), 7 * (high - low) * log_term / (3 * (n - 1))
