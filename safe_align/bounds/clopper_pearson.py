"""Clopper-Pearson: exact, for costs of two values, such as harmless or harmful.

    U = low + (high - low) p,   p = the 1 - delta quantile of Beta(k + 1, n - k),   p = 1 where k = n

for k costs of `high` among n: the largest rate of harm under which k or fewer had probability delta. Without a harm,
p = 1 - delta^(1 / n): 299 prompts for a rate of 1 in 100 at 95%, 2995 for 1 in 1000. Source: Clopper and Pearson
(1934). Assumes independent prompts, one response each; averages of several responses are no longer binary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from safe_align.bounds._checked import Array, as_row, from_unit, unit_rows
from safe_align.config import UserError

ASSUMES = 'independent prompts from the distribution that the certificate names, and costs that are either low or high'
TARGET = 'mean'
FINITE_SAMPLE = True
NEEDS_RANGE = True
MIN_COSTS = 1


def upper_bound(costs: ArrayLike, *, delta: float, low: float, high: float) -> float:
    """The bound from `costs` (n,), n >= 1, each of them `low` or `high`, in their unit.

    Raises:
        UserError: costs of another shape, not finite or of a third value; a range or a delta that is none.
    """
    return float(upper_bounds(as_row(costs), delta=delta, low=low, high=high)[0])


def upper_bounds(costs: ArrayLike, *, delta: float, low: float, high: float) -> Array:
    """The same of many studies at once: (S, n) -> (S,)."""
    x = unit_rows(costs, delta=delta, low=low, high=high)
    between = np.minimum(x, 1 - x) > 1e-9  # an average of equal costs may miss its end by a rounding error
    if between.any():
        found = low + (high - low) * x[between][0]
        raise UserError(f'costs: clopper_pearson takes {low} and {high} alone; found {found:g}; betting takes any')
    n, k = x.shape[1], np.rint(x).sum(1)
    rate = special.betaincinv(k + 1, np.maximum(n - k, 1), 1 - delta)
    return from_unit(np.where(k == n, 1.0, rate), low=low, high=high)
