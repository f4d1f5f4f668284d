"""Several responses of one prompt are no independent costs: the prompt is the unit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds import Array, column
from safe_align.config import UserError


def cluster_means(costs: ArrayLike, prompts: Iterable[Hashable]) -> Array:
    """One number a prompt, the mean over its responses: (N,), N names of prompts -> (P,).

    In the order in which the prompts first appear, since a bound by betting depends on it. Every bound applies to the
    means as it would to single costs, except Clopper-Pearson's: they are no longer binary. Prompts with more responses
    than others count no more than they.

    Raises:
        UserError: no costs, another shape than (N,), a cost that is not finite, or another number of prompts.
    """
    values = column(costs)
    places: dict[Hashable, int] = {}
    index = [places.setdefault(prompt, len(places)) for prompt in prompts]
    if len(index) != len(values):
        raise UserError(f'prompts: expected one for each of the {len(values)} costs; found {len(index)}')
    means: Array = np.bincount(index, weights=values) / np.bincount(index)
    return means
