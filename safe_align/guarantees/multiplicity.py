"""Several tests at once.

That *all* of several constraints hold needs no correction: each is tested at delta, and all must pass. What follows is
for saying *which* hold, and for choosing among candidates on the same costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safe_align.bounds import Array, column
from safe_align.config import UserError


def holm(p_values: ArrayLike) -> Array:
    """Holm's adjusted p-values, in the order given: (k,) -> (k,). Source: Holm (1979).

    The claims whose adjusted p-value is at most delta are all true with probability 1 - delta, however the tests
    depend on each other: the i-th smallest is multiplied by k - i + 1, and none is below the one before it.

    Raises:
        UserError: none, another shape, or a number outside [0, 1].
    """
    values = column(p_values, 'p_values')
    if values.min() < 0 or values.max() > 1:
        raise UserError(f'p_values: expected numbers in [0, 1]; found {values.min():g} to {values.max():g}')
    order = np.argsort(values, kind='stable')
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return adjusted


def step_down(passes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of k claims hold, from tests at delta / 1, ..., delta / k in place of p-values: (k, k) -> (k,).

    Row m - 1 says which tests pass at delta / m. With probability 1 - delta no claim that holds is false, however the
    tests depend on each other: a claim holds if in every set of m claims with it some test passes at delta / m, which
    in the set of the false ones happens with probability delta at most. Where a test that passes at a level also
    passes at each higher one, as with p-values, this is Holm's method, `holm(p_values) <= delta`. A bound by betting
    need not: its bets depend on delta. Source: Marcus, Peritz and Gabriel (1976), closed tests.

    Raises:
        UserError: no table of k rows and k columns.
    """
    table = np.asarray(passes, dtype=bool)
    if table.ndim != 2 or not len(table) or len(set(table.shape)) != 1:
        raise UserError(f'passes: expected a row a level and a column a claim, as many of both; found {table.shape}')
    # a set of m claims, none of which passes at delta / m, is there with all that fail, if these are m or more
    enough = (~table).sum(1) >= np.arange(1, len(table) + 1)
    return ~(~table & enough[:, None]).any(0)


def fixed_sequence(passes: Iterable[bool]) -> int:
    """How many tests pass before the first that fails, each at the full delta, in an order fixed beforehand.

    With probability 1 - delta no claim among them is false: the first false one in the order would have to pass.
    For selection on the same costs, order the candidates by what training data say of them, and keep the last that
    passes. Nothing is asked for behind the first failure, so a generator runs no test in vain.
    """
    return sum(1 for _ in itertools.takewhile(bool, passes))
