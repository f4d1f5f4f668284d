"""Hoeffding's: from the range and the number of costs alone.

    U = m + (high - low) sqrt(ln(1 / delta) / (2 n))

Source: Hoeffding (1963), theorem 2. Assumes independent prompts and costs within [low, high], and nothing of their
spread; so it is as wide for costs that are nearly constant as for those that are all at the ends.
"""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from safe_align.bounds._checked import Array, as_row, from_unit, unit_rows

ASSUMES = 'independent prompts from the distribution that the certificate names, and costs within [low, high]'
TARGET = 'mean'
FINITE_SAMPLE = True
NEEDS_RANGE = True
MIN_COSTS = 1


def upper_bound(costs: ArrayLike, *, delta: float, low: float, high: float) -> float:
    """The bound from `costs` (n,), n >= 1, in their unit, and never above `high`.

    Raises:
        UserError: costs of another shape, not finite or outside [low, high]; a range or a delta that is none.
    """
    return float(upper_bounds(as_row(costs), delta=delta, low=low, high=high)[0])


def upper_bounds(costs: ArrayLike, *, delta: float, low: float, high: float) -> Array:
    """The same of many studies at once: (S, n) -> (S,)."""
    x = unit_rows(costs, delta=delta, low=low, high=high)
    return from_unit(x.mean(1) + math.sqrt(-math.log(delta) / (2 * x.shape[1])), low=low, high=high)
