"""What every bound asks of its arguments, and the way to the scale [0, 1] and back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safe_align.config import UserError

Array = NDArray[np.float64]
SLACK = 1e-9  # of the range: by so much may an average of costs that are all `high` come out above it


def check_delta(delta: float, *, highest: float = 1.0) -> None:
    """Raise `UserError` unless 0 < delta < 1, or delta <= `highest` where that is lower."""
    if not 0 < delta < 1:
        raise UserError(f'delta: expected a number between 0 and 1, both excluded; found {delta}')
    if delta > highest:
        raise UserError(f'delta: this bound holds for delta up to {highest} alone; found {delta}')


def check_range(low: float, high: float, *, finite: bool = True) -> None:
    """Raise `UserError` unless low < high, and finite where asked."""
    if not low < high:
        raise UserError(f'low, high: expected low below high; found {low} and {high}')
    if finite and not math.isfinite(high - low):
        raise UserError(f'low, high: this bound needs a finite range of the costs; found {low} and {high}')


def column(values: ArrayLike, name: str = 'costs', *, at_least: int = 1) -> Array:
    """One finite number a prompt, (n,), as float64.

    Raises:
        UserError: another shape, fewer than `at_least`, or one that is no finite number.
    """
    array = _floats(values, name)
    if array.ndim != 1:
        raise UserError(f'{name}: expected one number a prompt, a 1-d array; found the shape {array.shape}')
    return _finite(array, name, at_least)


def as_row(costs: ArrayLike) -> Array:
    """One study as a table of one row: (n,) -> (1, n)."""
    array = _floats(costs, 'costs')
    if array.ndim != 1:
        raise UserError(f'costs: expected one number a prompt, a 1-d array; found the shape {array.shape}')
    return array[None]


def rows(costs: ArrayLike, *, delta: float, low: float, high: float, at_least: int = 1) -> Array:
    """Studies that are checked, (S, n) -> (S, n), in their own unit; low and high may be infinite."""
    check_delta(delta)
    check_range(low, high, finite=False)
    array = _floats(costs, 'costs')
    if array.ndim != 2:
        raise UserError(f'costs: expected a row a study, a 2-d array; found the shape {array.shape}')
    _finite(array, 'costs', at_least)
    slack = SLACK * (high - low) if math.isfinite(high - low) else 0.0
    outside = (array < low - slack) | (array > high + slack)
    if outside.any():
        raise UserError(f'costs: {_first(array, outside)} is outside [low, high] = [{low}, {high}]')
    return array


def unit_rows(costs: ArrayLike, *, delta: float, low: float, high: float, at_least: int = 1) -> Array:
    """Studies that are checked, (S, n) -> (S, n), with low at 0 and high at 1."""
    check_range(low, high)
    array = rows(costs, delta=delta, low=low, high=high, at_least=at_least)
    return np.clip((array - low) / (high - low), 0.0, 1.0)


def from_unit(bounds: Array, *, low: float, high: float) -> Array:
    """Bounds on the scale [0, 1] in the unit of the costs, none above high: (S,) -> (S,)."""
    return high - (high - low) * np.maximum(1.0 - bounds, 0.0)


def _floats(values: ArrayLike, name: str) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f'{name}: expected numbers; {error}') from error


def _finite(array: Array, name: str, at_least: int) -> Array:
    if array.shape[-1] < at_least:
        raise UserError(f'{name}: at least {at_least} are needed; found {array.shape[-1]}')
    broken = ~np.isfinite(array)
    if broken.any():
        raise UserError(f'{name}: {_first(array, broken)} is not a finite number')
    return array


def _first(array: Array, where: NDArray[np.bool_]) -> str:
    place = np.argwhere(where)[0]
    return f'number {place[-1] + 1} ({array[tuple(place)]})'
