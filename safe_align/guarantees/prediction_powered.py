"""Few costs of people's judgement and many of a cost model: a bound of the true cost, whatever the model's error."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from safe_align.bounds import Array, as_row, betting, check_delta, check_range, column, unit_rows
from safe_align.config import UserError


class Audit(NamedTuple):
    """What labels say of the expected cost with the help of a cost model."""

    upper: float
    """The upper bound of the expected true cost."""
    estimate: float
    """The estimate that it lies above."""
    weight: float
    """How much of the cost model was used: 0, labels alone; 1, all of it."""
    gap: float
    """Mean of label less score on the labelled prompts: by how much the cost model flatters."""


def prediction_powered(
    labels: ArrayLike, scores_labelled: ArrayLike, scores_unlabelled: ArrayLike, *, delta: float
) -> Audit:
    """PPI++: an asymptotic bound of the expected label from n labels and the scores of n + N prompts.

        estimate = w mean_N(score) + mean_n(label - w score),   upper = estimate + z_{1 - delta} se
        se^2 = w^2 var_N(score) / N + var_n(label - w score) / n
        w = cov(label, score) / var(score) x N / (N + n),   the variance over all n + N scores

    Source: arXiv:2311.01453. Assumes that labelled and unlabelled prompts are independent draws of one distribution,
    and enough of both for the central limit; nothing of the cost model.

    Args:
        labels: (n,), n >= 2, true costs, one a prompt.
        scores_labelled: (n,), the cost model's of the same.
        scores_unlabelled: (N,), N >= 2, the cost model's of other prompts.
        delta: probability that the expected label is above the bound, as n grows.

    Raises:
        UserError: another shape, too few, or a number that is not finite.
    """
    check_delta(delta)
    c, s, u = _columns(labels, scores_labelled, scores_unlabelled, at_least=2)
    spread = np.concatenate([s, u]).var(ddof=1)
    weight = float(np.cov(c, s)[0, 1] / spread * len(u) / (len(u) + len(c))) if spread > 0 else 0.0
    estimate = weight * u.mean() + (c - weight * s).mean()
    variance = weight**2 * u.var(ddof=1) / len(u) + (c - weight * s).var(ddof=1) / len(c)
    upper = estimate + special.ndtri(1 - delta) * math.sqrt(variance)
    return Audit(float(upper), float(estimate), weight, float((c - s).mean()))


def prediction_powered_betting(
    labels: ArrayLike, scores_labelled: ArrayLike, scores_unlabelled: ArrayLike,
    *, delta: float, low: float, high: float, weight: float = 1.0, share: float = 0.1,
) -> Audit:  # fmt: skip
    """The same at every n: two bounds by betting, of the score's expectation and of that of label - w score.

        upper = w U(scores of N; share delta) + U(labels - w scores of n; (1 - share) delta)

    The second is of numbers in [low - w high, high - w low]. Scores are cut to [low, high] first, which changes the
    cost model, and so costs nothing. Worth it where the cost model is good: with w = 1 the range is twice that of the
    labels, which few labels do not make up for. Source: arXiv:2301.09633 with the bound of arXiv:2010.09686.

    Args:
        labels: (n,), n >= 1, true costs in [low, high], one a prompt, in an order fixed beforehand.
        scores_labelled: (n,), the cost model's of the same.
        scores_unlabelled: (N,), N >= 1, the cost model's of other prompts.
        delta: probability that the expected label is above the bound.
        low: least cost there can be.
        high: largest cost there can be.
        weight: w in [0, 1], fixed before any of these numbers are seen; those of an earlier audit may choose it.
        share: which part of delta the first bound has.

    Raises:
        UserError: another shape, none, a number that is not finite, a label outside the range, or an option that is.
    """
    check_range(low, high)
    if not 0 <= weight <= 1:
        raise UserError(f'weight: expected a number in [0, 1]; found {weight}')
    if not 0 < share < 1:
        raise UserError(f'share: expected a number between 0 and 1, both excluded; found {share}')
    c, s, u = _columns(labels, scores_labelled, scores_unlabelled, at_least=1)
    unit_rows(as_row(c), delta=delta, low=low, high=high)  # a label out of range may hide behind its score
    s, u = np.clip(s, low, high), np.clip(u, low, high)
    if not weight:
        share = 0.0
    rest = betting.upper_bound(
        c - weight * s, delta=(1 - share) * delta, low=low - weight * high, high=high - weight * low
    )
    scores = betting.upper_bound(u, delta=share * delta, low=low, high=high) if weight else 0.0
    estimate = weight * u.mean() + (c - weight * s).mean()
    return Audit(min(weight * scores + rest, high), float(estimate), weight, float((c - s).mean()))


def _columns(labels: ArrayLike, scored: ArrayLike, others: ArrayLike, *, at_least: int) -> tuple[Array, Array, Array]:
    c = column(labels, 'labels', at_least=at_least)
    s = column(scored, 'scores_labelled', at_least=at_least)
    if len(c) != len(s):
        raise UserError(f'scores_labelled: expected one for each of the {len(c)} labels; found {len(s)}')
    return c, s, column(others, 'scores_unlabelled', at_least=at_least)
