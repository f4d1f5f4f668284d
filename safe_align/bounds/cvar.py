"""Of the worst costs: the mean of the `alpha` share that is highest, bounded as Anderson's bounds the mean of all.

    U = high - (1 / alpha) sum_i (x_(i+1) - x_(i)) max(0, i / n - eps - (1 - alpha)),   x_(n+1) = high,
    eps = sqrt(ln(1 / delta) / (2 n))

CVaR is high - (1 / alpha) times the integral of max(0, F - (1 - alpha)), and F is nowhere above the band that the
sorted costs give. With alpha = 1 it is Anderson's bound. Where eps >= alpha nothing is known of the worst share, and
U = high: below `num_costs_needed` prompts this bound says nothing. Source: Thomas and Learned-Miller (ICML 2019).
Assumes independent prompts and costs that are at most `high`. The expected cost is below it too.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds._checked import Array, as_row, check_delta, column, from_unit, unit_rows
from safe_align.config import UserError

ASSUMES = 'independent prompts from the distribution that the certificate names, and costs that are at most high'
TARGET = 'cvar'
FINITE_SAMPLE = True
NEEDS_RANGE = True
MIN_COSTS = 1
LARGEST_DELTA = 0.5
ALPHA = 0.1


def upper_bound(costs: ArrayLike, *, delta: float, low: float, high: float, alpha: float = ALPHA) -> float:
    """The bound of the CVaR at `alpha` in (0, 1] from `costs` (n,), n >= 1, in their unit; delta at most 1/2.

    Raises:
        UserError: costs of another shape, not finite or outside [low, high]; a range, a delta or an alpha that is none.
    """
    return float(upper_bounds(as_row(costs), delta=delta, low=low, high=high, alpha=alpha)[0])


def upper_bounds(costs: ArrayLike, *, delta: float, low: float, high: float, alpha: float = ALPHA) -> Array:
    """The same of many studies at once: (S, n) -> (S,)."""
    check_delta(delta, highest=LARGEST_DELTA)
    _check_alpha(alpha)
    x = np.sort(unit_rows(costs, delta=delta, low=low, high=high), axis=1)
    eps = math.sqrt(-math.log(delta) / (2 * x.shape[1]))
    return from_unit(1 - np.diff(x, axis=1, append=1.0) @ _tail(x.shape[1], alpha, eps), low=low, high=high)


def empirical(costs: ArrayLike, *, alpha: float = ALPHA) -> float:
    """The mean of the `alpha` share of `costs` (n,) that is highest, a fraction of a cost counted as such."""
    _check_alpha(alpha)
    x = np.sort(column(costs))
    return float(x[-1] - np.diff(x, append=x[-1]) @ _tail(len(x), alpha, 0.0))


def num_costs_needed(*, delta: float, alpha: float = ALPHA) -> int:
    """The least number of costs with which the bound can be below `high`: eps < alpha."""
    check_delta(delta, highest=LARGEST_DELTA)
    _check_alpha(alpha)
    return math.floor(-math.log(delta) / (2 * alpha**2)) + 1


def _tail(n: int, alpha: float, eps: float) -> Array:
    tail: Array = np.maximum(0.0, np.arange(1, n + 1) / n - eps - (1 - alpha)) / alpha
    return tail


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha <= 1:
        raise UserError(f'alpha: expected a share of the costs in (0, 1]; found {alpha}')
