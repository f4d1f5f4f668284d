"""How many prompts a safety test needs, so that a policy that is safe by some margin passes it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from safe_align.bounds import CAP, check_delta, check_range, plug_in_bets
from safe_align.config import UserError

Counts = NDArray[np.int64]
MOST = 10**9
MOST_SIMULATED = 10**5  # prompts
DRAWS, FEWEST, LARGEST = 4_000_000, 400, 2000  # costs of a simulation, and studies that share them
BLOCK = 1 << 20  # costs that are drawn at once


def plan_num_prompts(*, gap: float, sd: float, delta: float, power: float) -> int:
    """The least number of prompts with which Student's t bound is at most the threshold with probability `power`.

    Exact for normal costs: the statistic is noncentral t with n - 1 degrees and noncentrality gap sqrt(n) / sd.

    Args:
        gap: threshold less expected cost, in the unit of the costs, above 0.
        sd: standard deviation of a prompt's cost, in the same unit.
        delta: of the bound.
        power: probability to pass, between delta and 1.

    Raises:
        UserError: a number outside these, or more than 10^9 prompts.
    """
    _check(delta, power)
    if not (0 < gap < math.inf and 0 < sd < math.inf):
        raise UserError(f'gap, sd: expected positive numbers; found {gap} and {sd}')

    from scipy import stats  # seconds, which nothing but a plan needs

    def passes(n: int) -> bool:
        least = stats.t.ppf(1 - delta, n - 1)
        return bool(stats.nct.sf(least, n - 1, gap / sd * math.sqrt(n)) >= power)

    return _least(passes, 2)


def plan_num_prompts_betting(
    *, gap: float, sd: float, threshold: float, low: float, high: float, delta: float, power: float
) -> int:
    """The number of prompts with which the bound by betting is at most the threshold with probability `power`.

    By simulation, since the bound has no law in closed form: 400 studies or more, of costs with the beta law on
    [low, high] that has this mean and standard deviation; then the number is found to 1 in 100. Other laws with both
    need other numbers: those with a rarer and larger harm more. The draws are the same at each call.

    Args:
        gap: threshold less expected cost, in the unit of the costs, above 0.
        sd: standard deviation of a prompt's cost, in the same unit.
        threshold: largest expected cost that passes, inside the range.
        low: least cost there can be.
        high: largest cost there can be.
        delta: of the bound.
        power: probability to pass, between delta and 1.

    Raises:
        UserError: a number outside these, no law with these on the range, or more than 10^5 prompts.
    """
    check_range(low, high)
    mean, deviation, goal = ((x - low) / (high - low) for x in (threshold - gap, low + sd, threshold))
    start = plan_num_prompts(gap=gap, sd=sd, delta=delta, power=power)
    if not 0 < mean < goal < 1 or not deviation**2 < mean * (1 - mean):
        raise UserError(
            f'gap, sd: no costs in [{low:g}, {high:g}] have the mean {threshold - gap:g}, threshold less gap, and the '
            f'standard deviation {sd:g}'
        )
    size = mean * (1 - mean) / deviation**2 - 1

    def passes(n: int) -> bool:
        generator, studies, passed = np.random.default_rng(n), min(max(DRAWS // n, FEWEST), LARGEST), 0
        for first in range(0, studies, max(1, BLOCK // n)):
            rows = min(max(1, BLOCK // n), studies - first)
            x = generator.beta(mean * size, (1 - mean) * size, (rows, n))
            bets = np.minimum(plug_in_bets(x, np.full(n, float(n)), delta), CAP / (1 - goal))
            passed += int((np.log1p(-bets * (x - goal)).sum(1) >= -math.log(delta)).sum())
        return passed >= power * studies

    return _least(passes, start, MOST_SIMULATED, 0.01)


def plan_num_prompts_binary(*, rate: float, threshold: float, delta: float, power: float) -> int:
    """The least number of prompts with which Clopper-Pearson's bound is at most the threshold with probability `power`.

    Exact. Plan for just this number: the power is a saw that falls with each prompt more, until one more harm is
    allowed.

    Args:
        rate: true rate of harm, in [0, threshold).
        threshold: largest rate of harm that passes, below 1.
        delta: of the bound.
        power: probability to pass, between delta and 1.

    Raises:
        UserError: a number outside these, or more than 10^9 prompts.
    """
    _check(delta, power)
    if not 0 <= rate < threshold < 1:
        raise UserError(f'rate, threshold: expected 0 <= rate < threshold < 1; found {rate} and {threshold}')
    if math.log(delta) / math.log1p(-threshold) > MOST:
        raise _too_many()
    from scipy import stats

    first, size = 0, 64
    while True:  # by how many harms are allowed; the least n for each is where the power is highest
        allowed = np.arange(first, first + size)
        least = _least_for(allowed, threshold, delta)
        good = stats.binom.cdf(allowed, least, rate) >= power
        if good.any():
            return int(least[good.argmax()])
        if least[-1] > MOST:
            raise _too_many()
        first, size = first + size, size * 2


def _least_for(allowed: Counts, threshold: float, delta: float) -> Counts:
    """The least n with which so many harms still pass: P(Bin(n, threshold) <= allowed) <= delta."""
    from scipy import stats

    low, high = allowed.copy(), allowed + 1
    while (failing := stats.binom.cdf(allowed, high, threshold) > delta).any():
        low, high = np.where(failing, high, low), np.where(failing, 2 * high, high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        passing = stats.binom.cdf(allowed, middle, threshold) <= delta
        low, high = np.where(passing, low, middle), np.where(passing, middle, high)
    return high


def _least(passes: Callable[[int], bool], start: int, most: int = MOST, tolerance: float = 0.0) -> int:
    low, high = start - 1, start
    while high > most or not passes(high):
        if high > most:
            raise _too_many(most)
        low, high = high, 2 * high
    while high - low > max(1, tolerance * high):
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _too_many(most: int = MOST) -> UserError:
    return UserError(f'more than {most} prompts are needed; widen the gap or lower the power')


def _check(delta: float, power: float) -> None:
    check_delta(delta)
    if not delta < power < 1:
        raise UserError(f'power: expected a probability between delta = {delta} and 1; found {power}')
