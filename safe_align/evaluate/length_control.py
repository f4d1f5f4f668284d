"""Win rates as they would be if both answers had the same length: AlpacaEval 2, Dubois et al. 2024, arXiv 2404.04475.

Where we differ from its code: the length effect and that of difficulty are held by a standard normal prior, in place of
an L1 penalty found by five folds and of rows of baselines told to be brief or verbose, which other judges' data have
not; and the interval is of prompts as the unit, where its standard error is that of the raw win rate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import expit, logit

from safe_align.bounds import Array
from safe_align.config import UserError
from safe_align.evaluate.ratings import resample
from safe_align.evaluate.statistics import LEVEL, Estimate

PRIOR = 1.0  # 1 / variance of the effects of length and difficulty, which are a logit or less


class LengthControlled(NamedTuple):
    """A win rate at no difference of lengths, and what it was read off."""

    win_rate: Estimate
    strength: float  # logits, at no difference of lengths
    length_effect: float  # logits that tanh(difference / deviation) is multiplied by
    difficulty_effect: float  # logits a unit of difficulty; 0 where none is given


def length_controlled(
    outcomes: ArrayLike, differences: ArrayLike, difficulty: ArrayLike | None = None
) -> LengthControlled:
    """The mean of sigma(theta + psi difficulty), of P(win) = sigma(theta + phi tanh(d / sd(d)) + psi difficulty).

    The logistic regression of eq. 2 with outcomes between 0 and 1 (a tie is 0.5) by Newton's steps, each prompt
    counting once. The 95% interval is Student's, in logits, by the sandwich over prompts, each prompt's score being
    the one that it would have were it left out (CR3, Bell and McCaffrey 2002): resampling the prompts misses more than
    it says where there are few (`benchmarks/coverage.py`). Where one side won all, it is given one more game, drawn at
    no difference, as in `ratings.bradley_terry`. One or two prompts have their raw win rate, and no interval.

    The prior pulls strong effects of length towards 0: of 2 or 3 logits, and with nine wins of ten at equal length, the
    interval holds 55% to 93% at 50 and 200 prompts instead of 95%, and 87% to 96% at 1000.

    Args:
        outcomes: (P,) or (P, S), of S samples a prompt; 1 where the policy won, 0 where its opponent did.
        differences: the same shape; length of the policy's answer less that of its opponent's, in any unit.
        difficulty: (P,), a fixed number of each prompt; AlpacaEval has a file of them.

    Raises:
        UserError: outcomes outside [0, 1], or shapes that differ.
    """
    wins, design = _design(outcomes, differences, difficulty)
    number, _, size = design.shape
    if number < 3:  # as many effects as prompts
        value = wins.mean() if number else math.nan
        return LengthControlled(Estimate(float(value), math.nan, math.nan), math.nan, math.nan, math.nan)
    is_constant = bool((wins == wins[0, 0]).all())
    one_sided = is_constant and wins[0, 0] in (0, 1)
    beta, inverse = (found[0] for found in _fit(wins, design, np.ones((1, number)), np.full(1, float(one_sided))))
    level = expit(design[:, 0] @ (beta * _at_no_difference(size)))
    chance = expit(design @ beta)
    scores = (design * (wins - chance)[..., None]).mean(1)
    weights = (chance * (1 - chance))[..., None, None] * design[..., :, None] * design[..., None, :]
    scores = np.linalg.solve(np.eye(size) - weights.mean(1) @ inverse, scores[..., None])[..., 0]
    value = level.mean()
    slope = (level * (1 - level)) @ (design[:, 0] * _at_no_difference(size)) / number
    if is_constant:  # no residual says how much it varies
        error = math.sqrt(slope @ inverse @ slope)
    else:
        shares = scores @ inverse @ slope + (level - value) / number
        error = math.sqrt((shares**2).sum() * (number - 1) / number)
    return LengthControlled(_interval(value, error, number - 2), float(beta[0]), float(beta[1]), float(beta[2:].sum()))


def bootstrap(
    outcomes: ArrayLike, differences: ArrayLike, difficulty: ArrayLike | None = None, *, num_resamples: int = 1000,
    seed: int = 0,
) -> Array:  # fmt: skip
    """Length-controlled win rates of resamples of the prompts, with the deviation of all: -> (num_resamples,)."""
    wins, design = _design(outcomes, differences, difficulty)
    counts = resample(len(wins), num_resamples, seed)
    means = counts @ wins.mean(1) / len(wins)
    beta, _ = _fit(wins, design, counts, ((means == 0) | (means == 1)).astype(float))
    levels = expit((beta * _at_no_difference(design.shape[-1])) @ design[:, 0].T)
    rates: Array = (levels * counts).sum(1) / len(wins)
    return rates


def _design(outcomes: ArrayLike, differences: ArrayLike, difficulty: ArrayLike | None) -> tuple[Array, Array]:
    """Outcomes, (P, S), and what they depend on, (P, S, 2 or 3)."""
    wins, apart = np.asarray(outcomes, float), np.asarray(differences, float)
    wins, apart = (one[:, None] if one.ndim == 1 else one for one in (wins, apart))
    if wins.shape != apart.shape or wins.ndim != 2:
        raise UserError(f'lengths: a difference for each outcome was expected; found {apart.shape} for {wins.shape}')
    if not ((wins >= 0) & (wins <= 1)).all():
        raise UserError('outcomes: numbers from 0 to 1 were expected')
    deviation = apart.std(ddof=1) if apart.size > 1 else 0.0
    columns = [np.ones_like(apart), np.tanh(apart / deviation) if deviation else np.zeros_like(apart)]
    if difficulty is not None:
        given = np.asarray(difficulty, float)
        if given.shape != wins.shape[:1]:
            raise UserError(f'difficulty: one for each of {len(wins)} prompts was expected; found {given.shape}')
        columns.append(np.broadcast_to(given[:, None], wins.shape))
    return wins, np.stack(columns, -1)


def _at_no_difference(size: int) -> Array:
    """Which effects remain: (size,)."""
    return np.array([1.0, 0.0, 1.0])[:size]


def _fit(wins: Array, design: Array, counts: Array, drawn: Array) -> tuple[Array, Array]:
    """Effects and the inverse of their information: of counts (B, P) and drawn games (B,) -> (B, q), (B, q, q)."""
    samples, size = design.shape[1:]
    rows, outcomes = design.reshape(-1, size), wins.ravel()
    squares = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    weights = np.repeat(counts, samples, 1) / samples
    prior = np.array([0.0, PRIOR, PRIOR])[:size]
    first = np.eye(size)[0]
    beta = np.zeros((len(counts), size))
    for _ in range(100):
        chance, middle = expit(beta @ rows.T), expit(beta[:, 0])
        slope = (weights * (outcomes - chance)) @ rows - prior * beta + (drawn * (0.5 - middle))[:, None] * first
        curve = ((weights * chance * (1 - chance)) @ squares).reshape(-1, size, size) + np.diag(prior)
        curve = curve + (drawn * middle * (1 - middle))[:, None, None] * np.outer(first, first)
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        beta += step / np.maximum(1, np.abs(step).max(-1, keepdims=True) / 2)  # no further than the quadratic holds
        if np.abs(step).max() < 1e-9:
            break
    return beta, np.linalg.inv(curve)


def _interval(value: float, error: float, freedom: int) -> Estimate:
    """In logits, so that it stays between 0 and 1."""
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error / (value * (1 - value))
    return Estimate(float(value), float(expit(logit(value) - half)), float(expit(logit(value) + half)))
