"""Means and shares with their 95% intervals; one number a prompt, since the prompt is the unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from safe_align.bounds import Array

LEVEL = 0.95


class Estimate(NamedTuple):
    """A value between the ends of its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return text_of(self.told())

    def told(self) -> dict[str, float | None]:
        """As JSON, which has no NaN."""
        return {name: None if math.isnan(value) else value for name, value in self._asdict().items()}


def text_of(told: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """What `Estimate.told` gave, with so many decimals: its value, and its interval if it has one; or 'n/a'."""
    value, low, high = map((told or {}).get, Estimate._fields)
    if value is None:
        return 'n/a'
    interval = '' if low is None or high is None else f' [{low:.{digits}f}, {high:.{digits}f}]'
    return f'{value:.{digits}f}{interval}'


def by_prompt(prompts: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    """Sums and counts of values, (n,), by prompt, (n,) any names: -> (P,), (P,)."""
    _, places = np.unique(prompts, return_inverse=True)
    return np.asarray(np.bincount(places, np.asarray(values, float)), float), np.asarray(np.bincount(places), float)


@cache
def student(freedom: int) -> float:
    """How many standard errors Student's interval reaches to either side."""
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def mean(values: ArrayLike) -> Estimate:
    """The mean with Student's interval; of differences, it is the paired one. (n,) or (n, K) -> value, low, high.

    `K` responses to one prompt are alike, so they are averaged first, and the prompt is the unit.
    """
    array = np.asarray(values, float)
    array = array.mean(1) if array.ndim == 2 else array
    if len(array) < 2:
        return Estimate(float(array.mean()) if len(array) else math.nan, math.nan, math.nan)
    half = student(len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return Estimate(float(array.mean()), float(array.mean() - half), float(array.mean() + half))


def ratio(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """Sum over sum, with the interval of its linearisation over prompts: (n,) or (n, K) twice; denominators above 0."""
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    if not below.size:
        return mean(below)
    value = above.sum() / below.sum()
    return Estimate(*(value + one for one in mean((above - value * below) / below.mean())))


def share(count: int, total: int) -> Estimate:
    """A share with Wilson's interval."""
    if not total:
        return Estimate(math.nan, math.nan, math.nan)
    interval = stats.binomtest(count, total).proportion_ci(LEVEL, method='wilson')
    return Estimate(count / total, float(interval.low), float(interval.high))


def rate(flags: ArrayLike) -> Estimate:
    """How often something is so: (n,) or (n, K); see `score_rate`."""
    return score_rate(np.asarray(flags, bool))


def win_rate(blue: ArrayLike, red: ArrayLike) -> Estimate:
    """How often blue is above red, a tie being half a win: (n,) or (n, K); see `score_rate`."""
    return score_rate((np.sign(np.asarray(blue, float) - np.asarray(red, float)) + 1) / 2)


def score_rate(scores: ArrayLike) -> Estimate:
    """The mean of scores from 0 to 1, as of games with ties, with Wilson's interval: (n,) or (n, K).

    Wilson's of as many independent wins and losses as have the same variance, p (1 - p) / var of the mean, with
    Student's quantile; of no ties and one score a prompt it is Wilson's own. Student's interval misses one time in
    eight at 50 prompts and nine wins of ten, since a mean near 1 and its deviation go together.
    """
    array = np.asarray(scores, float)
    array = array.mean(1) if array.ndim == 2 else array
    return clustered_rate(array, np.ones(len(array)))


def clustered_rate(sums: ArrayLike, counts: ArrayLike) -> Estimate:
    """As `score_rate`, of prompts that have `counts > 0` scores each, which sum to `sums`: (n,) twice.

    The value is the mean of all scores; its variance that of the linearised ratio, with the prompt as the unit.
    """
    above, below = np.asarray(sums, float), np.asarray(counts, float)
    number = len(below)
    if not number:
        return Estimate(math.nan, math.nan, math.nan)
    value = float(above.sum() / below.sum())
    if (below == 1).all() and np.isin(above, (0, 1)).all():
        return share(round(above.sum()), number)
    return wilson(value, (above - value * below) / below.sum())


def wilson(value: float, errors: ArrayLike, unseen: int | None = None) -> Estimate:
    """The interval of a number from 0 to 1, as of p (1 - p) / variance independent wins and losses.

    Args:
        value: the number, p.
        errors: what each prompt adds to the estimate's error, (n,) with a sum of 0.
        unseen: how many wins and losses there are where all errors are 0, which say nothing of it; n if absent.
    """
    array = np.asarray(errors, float)
    number = len(array)
    variance = (array**2).sum() * number / max(number - 1, 1)
    if value in (0, 1) and number:
        return share(round(value * (unseen or number)), unseen or number)
    if number < 2:
        return Estimate(value, math.nan, math.nan)
    alike = value * (1 - value) / variance if variance > 1e-20 else float(unseen or number)
    quantile = student(number - 1)
    middle = (value + quantile**2 / (2 * alike)) / (1 + quantile**2 / alike)
    half = quantile / (1 + quantile**2 / alike) * math.sqrt(value * (1 - value) / alike + (quantile / alike) ** 2 / 4)
    return Estimate(value, float(middle - half), float(middle + half))


def sign_test(blue: ArrayLike, red: ArrayLike) -> float:
    """How likely wins and losses this unequal are between equals: (n,) twice -> the exact two-sided p-value.

    Of pairs that differ alone, so McNemar's test where both are 0 or 1; 1 where none does.
    """
    difference = np.sign(np.asarray(blue, float) - np.asarray(red, float))
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def of_sums(statistic: Callable[[np.ndarray], float], rows: ArrayLike) -> Estimate:
    """A number that is computed of sums over prompts, (n, C) -> f((C,)), with the interval of its jackknife."""
    array = np.asarray(rows, float)
    total, n = array.sum(0), len(array)
    value = statistic(total)
    if n < 2:
        return Estimate(value, math.nan, math.nan)
    without = np.array([statistic(total - row) for row in array])
    _, low, high = mean((n - 1) * (without.mean() - without))  # what each prompt adds to it
    return Estimate(value, value + low, value + high)
