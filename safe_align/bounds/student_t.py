"""Student's t: exact for normal costs, wrong for rare harms at small n.

    U = m + t_{1 - delta, n - 1} s / sqrt(n),   m the mean, s the standard deviation with n - 1

Source: the constraint and the safety test of HC-RLHF, arXiv:2506.08266. Assumes independent prompts and a mean that is
normal: so it is for normal costs, and for any others once n is large, how large depending on their skew. With harms of
1 in 100 and 50 prompts, none is seen 6 times in 10; then s says nothing of them, and the bound lies below the truth.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from safe_align.bounds._checked import Array, as_row, rows

ASSUMES = 'independent prompts and a mean cost that is normally distributed, which fails for rare harms and few prompts'
TARGET = 'mean'
FINITE_SAMPLE = False
NEEDS_RANGE = False
MIN_COSTS = 2


def upper_bound(costs: ArrayLike, *, delta: float, low: float = -math.inf, high: float = math.inf) -> float:
    """The bound from `costs` (n,), n >= 2, in their unit, and never above `high`.

    Raises:
        UserError: costs of another shape, not finite or outside [low, high]; a delta that is no probability.
    """
    return float(upper_bounds(as_row(costs), delta=delta, low=low, high=high)[0])


def upper_bounds(costs: ArrayLike, *, delta: float, low: float = -math.inf, high: float = math.inf) -> Array:
    """The same of many studies at once: (S, n) -> (S,)."""
    array = rows(costs, delta=delta, low=low, high=high, at_least=MIN_COSTS)
    n = array.shape[1]
    margin = special.stdtrit(n - 1, 1 - delta) * array.std(1, ddof=1) / math.sqrt(n)
    return np.minimum(array.mean(1) + margin, high)


def margin(n: int, *, delta: float, low: float, high: float) -> tuple[float, float]:
    """The bound as mean + first x standard deviation + second, which training takes the gradient of."""
    return float(special.stdtrit(n - 1, 1 - delta)) / math.sqrt(n), 0.0
