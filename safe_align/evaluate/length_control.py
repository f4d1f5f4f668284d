"""Win rates as they would be if both answers had the same length: AlpacaEval 2, Dubois et al. 2024, arXiv 2404.04475.

Where we differ from its code: the effects of length and difficulty are kept finite by Jeffreys' prior, which takes
their bias out (Firth 1993), in place of an L1 penalty found by five folds and of rows of baselines told to be brief or
verbose, which other judges' data have not. The constant has no penalty, so that equal lengths leave the win rate as it
is (Puhr et al. 2017). The interval is of prompts as the unit, where its standard error is that of the raw win rate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from safe_align.bounds import Array
from safe_align.config import UserError
from safe_align.evaluate.ratings import resample
from safe_align.evaluate.statistics import Estimate, student

NONE = 1e-8  # information of an effect that no row tells of, as where all lengths are equal


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

    The logistic regression of eq. 2 with outcomes between 0 and 1 (a tie is 0.5), by scoring. The 95% interval is
    Student's, in logits, by the sandwich over prompts, their scores being larger by as much as each has pulled the fit
    towards itself (CR2, Bell and McCaffrey 2002, to first order). Resampling the prompts misses more than it says where
    there are few (`benchmarks/coverage.py`). Where one side won all, the constant has Jeffreys' prior too: without
    lengths that is one more game, drawn, as in `ratings.bradley_terry`. One or two prompts have their raw win rate, and
    no interval.

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
    beta, inverse = (found[0] for found in _fit(wins, design, np.ones((1, number))))
    level = expit(design[:, 0] @ (beta * _at_no_difference(size)))
    chance = expit(design @ beta)
    scores = (design * (wins - chance)[..., None]).sum(1)
    weights = (chance * (1 - chance))[..., None, None] * design[..., :, None] * design[..., None, :]
    scores = np.linalg.solve(np.eye(size) - weights.sum(1) @ inverse / 2, scores[..., None])[..., 0]
    value = level.mean()
    slope = (level * (1 - level)) @ (design[:, 0] * _at_no_difference(size)) / number
    if is_constant:  # no residual says how much it varies
        error = math.sqrt(slope @ inverse @ slope)
    else:
        shares = scores @ inverse @ slope + (level - value) / number
        error = _error((shares**2).sum(), slope @ inverse @ slope)
    return LengthControlled(_interval(value, error, number - 2), float(beta[0]), float(beta[1]), float(beta[2:].sum()))


def bootstrap(
    outcomes: ArrayLike, differences: ArrayLike, difficulty: ArrayLike | None = None, *, num_resamples: int = 1000,
    seed: int = 0,
) -> Array:  # fmt: skip
    """Length-controlled win rates of resamples of the prompts, with the deviation of all: -> (num_resamples,)."""
    wins, design = _design(outcomes, differences, difficulty)
    counts = resample(len(wins), num_resamples, seed)
    beta, _ = _fit(wins, design, counts)
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


def _fit(wins: Array, design: Array, counts: Array) -> tuple[Array, Array]:
    """Effects, and the inverse of their information, of prompts that count (B, P) times: -> (B, q), (B, q, q).

    All of them under Jeffreys' prior first; then the constant alone by likelihood, unless all was won or all lost.
    """
    samples, size = design.shape[1:]
    rows, outcomes, weights = design.reshape(-1, size), wins.ravel(), np.repeat(counts, samples, 1)
    beta = np.zeros((len(counts), size))
    for _ in range(100):
        chance = expit(beta @ rows.T)
        inverse = _inverse(rows, weights * chance * (1 - chance))
        leverage = ((rows @ inverse) * rows).sum(-1) * weights * chance * (1 - chance)
        slope = (weights * (outcomes - chance) + leverage * (0.5 - chance)) @ rows
        if _move(beta, (inverse @ slope[..., None])[..., 0]) < 1e-9:
            break
    mean = (weights @ outcomes) / weights.sum(1)
    mixed = (mean > 0) & (mean < 1)
    for _ in range(100):
        chance = expit(beta @ rows.T)
        slope = (weights * (outcomes - chance)).sum(1) / (weights * chance * (1 - chance)).sum(1)
        if _move(beta, (slope * mixed)[:, None] * np.eye(size)[0]) < 1e-9:
            break
    chance = expit(beta @ rows.T)
    information = weights * chance * (1 - chance)
    leverage = ((rows @ _inverse(rows, information)) * rows).sum(-1) * information
    return beta, _inverse(rows, information * (1 + leverage))  # the prior is as a row more for each unit of leverage


def _inverse(rows: Array, weights: Array) -> Array:
    """Of the information: (N, q), (B, N) -> (B, q, q)."""
    size = rows.shape[1]
    squares = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    information = (weights @ squares).reshape(-1, size, size) + NONE * np.eye(size)
    return np.asarray(np.linalg.inv(information), float)


def _move(beta: Array, step: Array) -> float:
    """Take the step, but no further than the quadratic holds; how long the longest is."""
    beta += step / np.maximum(1, np.abs(step).max(-1, keepdims=True) / 2)
    return float(np.abs(step).max())


def _interval(value: float, error: float, freedom: int) -> Estimate:
    """In logits, so that it stays between 0 and 1."""
    half = student(freedom) * error / (value * (1 - value))
    return Estimate(float(value), float(expit(logit(value) - half)), float(expit(logit(value) + half)))


def _error(sandwich: float, model: float) -> float:
    """The standard error, of the variance by the sandwich and that by the model.

    Where the model's is larger, a third of the way to it: of few losses a sandwich is too small. Alone it holds 91% at
    50 prompts of which 45 were won, and the larger of the two 98%.
    """
    return math.sqrt(max(sandwich, (2 * sandwich + model) / 3))
