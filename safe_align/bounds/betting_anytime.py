"""Betting, valid at every number of costs at once, so that one may look after each and stop at any.

    U = inf {m : max_{t <= n} K_t(m) >= 1 / delta},   K_t(m) = prod_{i <= t} (1 - l_i (x_i - m)),
    l_i = min(sqrt(2 ln(1 / delta) / (i ln(1 + i) v_{i-1})), c / (1 - m)),   c = 1/2,   x = (cost - low) / (high - low)

with v as in `betting`. By Ville's inequality the probability that the bound is ever below the expectation, at any n,
is at most delta; with more costs it never rises. Source: Waudby-Smith and Ramdas, arXiv:2010.09686. Assumes that costs
are within [low, high] and that each has the same expectation given those before it. `safe_align.guarantees.EProcess`
says the same for one threshold, a cost at a time.
The bets depend on delta, and the bound may rise with it: invert it for no p-value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds._capital import least_ruined
from safe_align.bounds._checked import Array, as_row, from_unit, unit_rows

ASSUMES = (
    'independent prompts from the distribution that the certificate names, taken in an order fixed beforehand but '
    'stopped at will, and costs within [low, high]'
)
TARGET = 'mean'
FINITE_SAMPLE = True
ANYTIME = True
NEEDS_RANGE = True
MIN_COSTS = 1


def upper_bound(costs: ArrayLike, *, delta: float, low: float, high: float) -> float:
    """The bound from `costs` (n,), n >= 1, in their unit and order, and never above `high`.

    Raises:
        UserError: costs of another shape, not finite or outside [low, high]; a range or a delta that is none.
    """
    return float(upper_bounds(as_row(costs), delta=delta, low=low, high=high)[0])


def upper_bounds(costs: ArrayLike, *, delta: float, low: float, high: float) -> Array:
    """The same of many studies at once: (S, n) -> (S,)."""
    x = unit_rows(costs, delta=delta, low=low, high=high)
    t = np.arange(1, x.shape[1] + 1)
    found = least_ruined(x, t * np.log1p(t), delta, lambda logs: logs.cumsum(1).max(1))
    return from_unit(found, low=low, high=high)
