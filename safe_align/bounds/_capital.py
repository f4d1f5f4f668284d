"""Capital of a bet against each candidate mean m at once, and the least m that it ruins.

    K_t(m) = prod_{i <= t} (1 - l_i(m) (x_i - m)),   l_i(m) = min(b_i, CAP / (1 - m)),   x in [0, 1]

The bet b_i is known before x_i is. If the expectation is m or more, K is a supermartingale that starts at 1, so that
it reaches 1 / delta with probability delta at most; the bound is the least m at which it did.

**Monotone.** No factor falls as m grows. Where l_i = b_i, its slope is b_i >= 0. Where l_i = CAP / (1 - m), it is
1 + CAP (m - x) / (1 - m), of slope CAP (1 - x) / (1 - m)^2 >= 0. Both forms agree where they meet, and no factor is
below 1 - CAP > 0. So the m that are ruined are an interval that ends at 1, and one crossing is to be found: K(0) <= 1
is below 1 / delta, and where K(1) is too, nothing below 1 is ruined and the bound is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from safe_align.bounds._checked import Array

CAP = 0.5  # the share of the capital that the worst cost may take; arXiv:2010.09686 has 1/2 or 3/4
TOLERANCE = 1e-12
BLOCK = 1 << 15  # numbers that are worked on at once: they stay in a core's cache


def plug_in_bets(x: Array, horizon: Array, delta: float) -> Array:
    """b_i = sqrt(2 ln(1 / delta) / (horizon_i v_{i-1})) as in arXiv:2010.09686: (S, n), (n,) -> (S, n).

    The variance v and its mean are regularised by one cost of 1/2 with variance 1/4, and know the costs before.
    """
    num_seen = np.arange(2, x.shape[1] + 2)
    means = (0.5 + x.cumsum(1)) / num_seen
    variances = (0.25 + np.square(x - means).cumsum(1)) / num_seen
    before = np.concatenate([np.full((len(x), 1), 0.25), variances[:, :-1]], axis=1)
    return np.sqrt(-2 * math.log(delta) / (before * horizon))


def least_ruined(x: Array, horizon: Array, delta: float, reduce: Callable[[Array], Array]) -> Array:
    """The least m whose capital reached 1 / delta, from above: (S, n) in [0, 1] -> (S,).

    `reduce` makes of the logarithms of the factors, (S, n), that of the capital which counts, (S,).
    """
    found = np.empty(len(x))
    size = max(1, BLOCK // x.shape[1])
    for start in range(0, len(x), size):
        part = x[start : start + size]
        found[start : start + size] = _solve(part, plug_in_bets(part, horizon, delta), -math.log(delta), reduce)
    return found


def _solve(x: Array, bets: Array, goal: float, reduce: Callable[[Array], Array]) -> Array:
    def excess(m: Array) -> Array:
        room = np.maximum(1 - m, np.finfo(float).tiny)[:, None]
        return reduce(np.log1p(np.minimum(bets, CAP / room) * (m[:, None] - x))) - goal

    return first_crossing(excess, len(x))


def first_crossing(function: Callable[[Array], Array], num_rows: int) -> Array:
    """Where rows of a non-decreasing function of [0, 1], negative at 0, come to 0: (S,) -> (S,); 1 where they do not.

    The point is on the upper side, within `TOLERANCE`. By false position with the Illinois rule (the value at an end
    that stays is halved), some ten steps; what is left after forty is halved, so that none takes above a hundred.
    """
    low, high = np.zeros(num_rows), np.ones(num_rows)
    at_low, at_high = function(low), function(high)
    never = at_high < 0
    low[never] = 1.0
    was_above = np.zeros(num_rows, dtype=np.int8)
    for step in range(1, 101):
        width = high - low
        if not (width > TOLERANCE).any():
            break
        rise = at_high - at_low
        by_slope = (rise > 0) & (step <= 40)
        share = np.where(by_slope, at_high / np.where(by_slope, rise, 1.0), 0.5)
        margin = np.minimum(0.4 * TOLERANCE, width / 2)
        middle = np.clip(high - width * share, low + margin, high - margin)
        value = function(middle)
        above = value >= 0
        at_low = np.where(above, np.where(was_above == 1, at_low / 2, at_low), value)
        at_high = np.where(above, value, np.where(was_above == -1, at_high / 2, at_high))
        low, high = np.where(above, low, middle), np.where(above, middle, high)
        was_above = np.where(above, 1, -1).astype(np.int8)
    return high
