"""Several tests at once.

That *all* of several constraints hold needs no correction: each is tested at delta, and all must pass. What follows is
for saying *which* hold, and for choosing among candidates on the same costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

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


def fixed_sequence(passes: Iterable[bool]) -> int:
    """How many tests pass before the first that fails, each at the full delta, in an order fixed beforehand.

    With probability 1 - delta no claim among them is false: the first false one in the order would have to pass.
    For selection on the same costs, order the candidates by what training data say of them, and keep the last that
    passes. Nothing is asked for behind the first failure, so a generator runs no test in vain.
    """
    return sum(1 for _ in itertools.takewhile(bool, passes))
