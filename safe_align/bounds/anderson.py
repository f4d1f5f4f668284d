"""Anderson's: from a band around the whole distribution of the costs; never above Hoeffding's.

    U = high - sum_i (x_(i+1) - x_(i)) max(0, i / n - eps),   eps = sqrt(ln(1 / delta) / (2 n)),   x_(n+1) = high

The sorted costs x_(1) <= ... <= x_(n) give a distribution function that the true one exceeds by eps nowhere, but with
probability delta (Dvoretzky, Kiefer and Wolfowitz with Massart's constant, which asks for delta <= 1/2); of all the
laws in that band, U is the largest mean. Source: Anderson (1969); arXiv:2106.03163 compares it with others. Assumes
independent prompts and costs that are at most `high`; `low` only makes the scale.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds._checked import Array, as_row, check_delta, from_unit, unit_rows

ASSUMES = 'independent prompts from the distribution that the certificate names, and costs that are at most high'
TARGET = 'mean'
FINITE_SAMPLE = True
NEEDS_RANGE = True
MIN_COSTS = 1
LARGEST_DELTA = 0.5


def upper_bound(costs: ArrayLike, *, delta: float, low: float, high: float) -> float:
    """The bound from `costs` (n,), n >= 1, in their unit, and never above `high`; delta at most 1/2.

    Raises:
        UserError: costs of another shape, not finite or outside [low, high]; a range or a delta that is none.
    """
    return float(upper_bounds(as_row(costs), delta=delta, low=low, high=high)[0])


def upper_bounds(costs: ArrayLike, *, delta: float, low: float, high: float) -> Array:
    """The same of many studies at once: (S, n) -> (S,)."""
    check_delta(delta, highest=LARGEST_DELTA)
    x = np.sort(unit_rows(costs, delta=delta, low=low, high=high), axis=1)
    n = x.shape[1]
    eps = math.sqrt(-math.log(delta) / (2 * n))
    gaps = np.diff(x, axis=1, append=1.0)
    return from_unit(1 - gaps @ np.maximum(0.0, np.arange(1, n + 1) / n - eps), low=low, high=high)
