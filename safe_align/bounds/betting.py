"""Betting: the narrowest of the bounds that hold for any costs in a range, n fixed beforehand.

    U = inf {m : K_n(m) >= 1 / delta},   K_n(m) = prod_i (1 - l_i (x_i - m)),
    l_i = min(sqrt(2 ln(1 / delta) / (n v_{i-1})), c / (1 - m)),   c = 1/2,   x = (cost - low) / (high - low)
    mu_t = (1/2 + sum x) / (t + 1),   v_t = (1/4 + sum (x_i - mu_i)^2) / (t + 1)

Source: the hedged capital of Waudby-Smith and Ramdas, arXiv:2010.09686, its side from above alone. Assumes that costs
are within [low, high] and that each has the same expectation given those before it; independent prompts do. The bound
depends on the order of the costs: fix it before they are seen, such as that of the prompts in their file.
The bets depend on delta, and the bound may rise with it: invert it for no p-value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds._capital import least_ruined
from safe_align.bounds._checked import Array, as_row, from_unit, unit_rows

ASSUMES = (
    'independent prompts from the distribution that the certificate names, their number and order fixed beforehand, '
    'and costs within [low, high]'
)
TARGET = 'mean'
FINITE_SAMPLE = True
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
    horizon = np.full(x.shape[1], float(x.shape[1]))
    return from_unit(least_ruined(x, horizon, delta, lambda logs: logs.sum(1)), low=low, high=high)
