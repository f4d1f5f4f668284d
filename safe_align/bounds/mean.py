"""The mean of the costs, with no margin: a plug-in, for training as in Safe RLHF.

    U = m

Source: PPO-Lag of arXiv:2310.12773 holds its constraint on this number. It certifies nothing: about half of the time
the expectation is above it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds._checked import Array, as_row, rows

ASSUMES = 'nothing, and guarantees nothing: the mean of the costs itself, without a margin'
TARGET = 'mean'
FINITE_SAMPLE = False
NEEDS_RANGE = False
MIN_COSTS = 1


def upper_bound(costs: ArrayLike, *, delta: float, low: float = -math.inf, high: float = math.inf) -> float:
    """The mean of `costs` (n,), n >= 1, in their unit; `delta` is not used.

    Raises:
        UserError: costs of another shape, not finite or outside [low, high]; a delta that is no probability.
    """
    return float(upper_bounds(as_row(costs), delta=delta, low=low, high=high)[0])


def upper_bounds(costs: ArrayLike, *, delta: float, low: float = -math.inf, high: float = math.inf) -> Array:
    """The same of many studies at once: (S, n) -> (S,)."""
    return np.minimum(rows(costs, delta=delta, low=low, high=high).mean(1), high)


def margin(n: int, *, delta: float, low: float, high: float) -> tuple[float, float]:
    """Nothing: (standard deviations, constant)."""
    return 0.0, 0.0
