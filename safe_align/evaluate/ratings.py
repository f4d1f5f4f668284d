"""Strengths of any number of policies from games between two of them each: Bradley and Terry's model, and Elo."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components

from safe_align.bounds import Array
from safe_align.config import UserError
from safe_align.evaluate.statistics import Estimate, student

PER_LOGIT = 400 / math.log(10)  # Elo points
PSEUDO = 0.5  # wins of each side in a game that was not played


class Ratings(NamedTuple):
    """Strengths in Elo, their intervals, and those of the differences."""

    elo: list[Estimate]  # K
    differences: list[list[Estimate]]  # K lists of K: the first policy above the second
    separated: bool  # the likelihood has no maximum: each pair that met was given a drawn game


def tally(games: Sequence[tuple[int, int, float, Hashable]], num_policies: int) -> Array:
    """Wins by prompt: of (a, b, outcome for a, prompt), an outcome being 1, 0, or a tie's 0.5, -> (P, K, K).

    `[p, a, b]` is how often a beat b on prompt p; a tie is half a win of each. Every game counts once, however many
    others its prompt has.

    Raises:
        UserError: an outcome outside [0, 1], a policy that is none of them, or one against itself.
    """
    places: dict[Hashable, int] = {}
    wins = np.zeros((len({prompt for *_, prompt in games}), num_policies, num_policies))
    for number, (a, b, outcome, prompt) in enumerate(games, 1):
        if a == b or not (0 <= a < num_policies and 0 <= b < num_policies):
            raise UserError(f'game {number}: two of the policies 0 to {num_policies - 1} were expected; found {a}, {b}')
        if not 0 <= outcome <= 1:
            raise UserError(f'game {number}: an outcome of 0, 0.5 or 1 was expected; found {outcome}')
        place = places.setdefault(prompt, len(places))
        wins[place, a, b] += outcome
        wins[place, b, a] += 1 - outcome
    return wins


def round_robin(values: ArrayLike) -> Array:
    """Wins by prompt where all policies answer all prompts and the higher value wins: (P, S, K) -> (P, K, K).

    Of S samples a prompt, sample s meets sample s; they are averaged, so that every prompt counts as one game a pair.
    """
    array = np.asarray(values, float)
    higher = np.sign(array[..., :, None] - array[..., None, :])
    wins: Array = ((higher + 1) / 2).mean(1)
    return wins * (1 - np.eye(array.shape[-1]))


def bradley_terry(wins: ArrayLike) -> Array:
    """Strengths of greatest likelihood, in logits that sum to 0: (..., K, K) -> (..., K).

    P(a beats b) = sigma(theta_a - theta_b) (Bradley and Terry 1952); a tie is half a win of each. By Newton's steps, of
    many tables at once. The maximum exists where no group of policies has won, or lost, all its games against the
    others (Ford 1957). Where one has, every pair that met gets one more game, drawn, and the strengths are finite.

    Raises:
        UserError: policies that no chain of games joins.
    """
    table = _with_pseudo_games(np.asarray(wins, float))
    size = table.shape[-1]
    games = table + table.swapaxes(-1, -2)
    theta = np.zeros(table.shape[:-1])
    for _ in range(100):
        chance = _chances(theta)
        step = np.linalg.solve(_information(games, chance) + 1 / size, (table - games * chance).sum(-1)[..., None])[
            ..., 0
        ]
        theta += step / np.maximum(1, np.abs(step).max(-1, keepdims=True) / 2)  # no further than the quadratic holds
        if not step.size or np.abs(step).max() < 1e-11:
            break
    return theta - theta.mean(-1, keepdims=True)


def fisher_covariance(wins: ArrayLike) -> Array:
    """Covariance of the strengths were all games independent and the model true: (..., K, K) -> (..., K, K)."""
    table = _with_pseudo_games(np.asarray(wins, float))
    return _inverse(_information(table + table.swapaxes(-1, -2), _chances(bradley_terry(table))))


def sandwich_covariance(wins: ArrayLike) -> Array:
    """Covariance of the strengths with the prompt as the unit: (..., P, K, K) -> (..., K, K).

    It holds whether or not the model is true. The inverse information on either side of the sum over prompts of the
    scores' outer products, times P / (P - 1): it knows that ties vary less than wins and losses, and that games on one
    prompt are alike (White 1982; Liang and Zeger 1986). Where `bradley_terry` has to add games, no residual says how
    much the strengths vary, and it is the inverse information alone.
    """
    table = np.asarray(wins, float)
    total, number = table.sum(-3), table.shape[-3]
    chance = _chances(bradley_terry(total))
    scores = (table - (table + table.swapaxes(-1, -2)) * chance[..., None, :, :]).sum(-1)
    bread = fisher_covariance(total)
    found = bread @ (scores.swapaxes(-1, -2) @ scores) @ bread * (number / max(number - 1, 1))
    return np.where(separated(total)[..., None, None], bread, found)


def rate(wins: ArrayLike, anchor: int | None = None) -> Ratings:
    """Elo, 400 / ln 10 points a logit, with 95% intervals of Student's t over prompts: (P, K, K).

    Args:
        wins: by prompt.
        anchor: the policy that has 1000; the mean is 0 where there is none.
    """
    table = np.asarray(wins, float)
    number, size = table.shape[:2]
    total = table.sum(0)
    theta, covariance = bradley_terry(total), sandwich_covariance(table)
    quantile = student(number - 1) if number > 1 else math.nan

    def estimate(weights: Array, start: float = 0.0) -> Estimate:
        value, half = start + PER_LOGIT * weights @ theta, PER_LOGIT * quantile * _root(weights, covariance)
        return Estimate(float(value), float(value - half), float(value + half))

    unit = np.eye(size)
    origin, start = (np.full(size, 1 / size), 0.0) if anchor is None else (unit[anchor], 1000.0)
    differences = [[estimate(a - b) for b in unit] for a in unit]
    return Ratings([estimate(a - origin, start) for a in unit], differences, bool(separated(total)))


def bootstrap(wins: ArrayLike, *, num_resamples: int = 1000, seed: int = 0) -> Array:
    """Strengths of resamples of the prompts, in logits: (P, K, K) -> (num_resamples, K)."""
    table = np.asarray(wins, float)
    number, size = table.shape[:2]
    counts = resample(number, num_resamples, seed)
    return bradley_terry((counts @ table.reshape(number, -1)).reshape(-1, size, size))


def resample(number: int, num_resamples: int, seed: int) -> Array:
    """How often each of `number` prompts is drawn, with replacement: (num_resamples, number)."""
    drawn = np.random.default_rng(seed).integers(number, size=(num_resamples, number))
    places = drawn + number * np.arange(num_resamples)[:, None]
    return np.bincount(places.ravel(), minlength=number * num_resamples).reshape(-1, number).astype(float)


def separated(wins: ArrayLike) -> NDArray[np.bool_]:
    """Where some policies won, or lost, all their games against the others: (..., K, K) -> (...) bool."""
    reached = (np.asarray(wins, float) > 0) | np.eye(np.shape(wins)[-1], dtype=bool)
    for _ in range(reached.shape[-1].bit_length()):
        reached = (reached.astype(float) @ reached) > 0
    return np.asarray(~reached.all((-1, -2)))


def _with_pseudo_games(wins: Array) -> Array:
    met = (wins + wins.swapaxes(-1, -2)) > 0
    for group in np.unique(met.reshape(-1, *met.shape[-2:]), axis=0):
        number, names = connected_components(group)
        if number > 1:
            parts = ' and '.join(str(np.flatnonzero(names == one).tolist()) for one in range(number))
            raise UserError(f'ratings: no chain of games joins the policies {parts}')
    return wins + PSEUDO * met * separated(wins)[..., None, None]


def _chances(theta: Array) -> Array:
    """P(row beats column): (..., K) -> (..., K, K)."""
    chance: Array = 0.5 + 0.5 * np.tanh((theta[..., :, None] - theta[..., None, :]) / 2)
    return chance


def _information(games: Array, chance: Array) -> Array:
    """Minus the second derivative of the log-likelihood: (..., K, K) twice -> (..., K, K), each row summing to 0."""
    weight = games * chance * (1 - chance)
    return weight.sum(-1)[..., None] * np.eye(games.shape[-1]) - weight


def _inverse(information: Array) -> Array:
    """Of a matrix that takes equal strengths to 0, the inverse on the strengths that sum to 0."""
    size = information.shape[-1]
    return np.linalg.inv(information + 1 / size) - 1 / size


def _root(weights: Array, covariance: Array) -> float:
    """Standard error of a weighted sum; rounding may leave a little less than 0 of nothing."""
    return math.sqrt(max(float(weights @ covariance @ weights), 0.0))
