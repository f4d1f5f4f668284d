"""How pessimistic a candidate is to be, chosen on the prompts that it is fitted to, by cross-fitting.

A candidate's cost on its own prompts is biased low: it was chosen for it. Here a part of the prompts is held out in
turn, a policy is fitted to the rest for each kappa, and the cost and the objective are those on the part held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safe_align.algorithms.pessimism import Pessimism
from safe_align.testbeds.candidate import best_policy
from safe_align.testbeds.safe_bandit import BETA, THRESHOLD, Array, Prompts

NUM_FOLDS = 5
STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # kappas that are tried, in margins of the test


class HeldOut(NamedTuple):
    """What policies fitted with `kappa` are worth on prompts that they were not fitted to."""

    kappa: float
    gain: float
    """The objective less the reference's."""
    mean: float
    std: float
    costs: Array
    """Of one response drawn for each prompt, (n,)."""


def cross_fit(prompts: Prompts, kappas: Sequence[float], rng: np.random.Generator) -> list[HeldOut]:
    """Fit and hold out, once for each kappa and fold; independent prompts, so that any folds will do."""
    fold = np.arange(len(prompts)) % NUM_FOLDS
    draws = rng.random((len(prompts), 1))
    tables = [np.empty((len(prompts), 4)) for _ in kappas]
    for held_out in range(NUM_FOLDS):
        rest, part = prompts.at(np.flatnonzero(fold != held_out)), prompts.at(np.flatnonzero(fold == held_out))
        theta = None
        for kappa, table in zip(kappas, tables, strict=True):
            theta = best_policy(rest, kappa, start=theta)
            table[fold == held_out] = _per_prompt(part, theta, draws[fold == held_out])
    return [_summary(kappa, table) for kappa, table in zip(kappas, tables, strict=True)]


def best_kappa(held_out: Sequence[HeldOut], pessimisms: Sequence[Pessimism]) -> float:
    """The kappa of the largest predicted chance of passing times gain, a policy that fails being worth the reference.

    Where nothing is expected of any of them, that of the largest chance.

    Args:
        held_out: of the kappas to choose among.
        pessimisms: what the test will take off, for each of them.
    """
    worth = []
    for one, pessimism in zip(held_out, pessimisms, strict=True):
        chance = pessimism.chance(one.mean, one.std, len(one.costs), THRESHOLD)
        worth.append((max(chance * one.gain, 0.0), chance))
    return held_out[worth.index(max(worth))].kappa


def _per_prompt(prompts: Prompts, theta: Array, draws: Array) -> Array:
    """Gain, cost, its square, and that of one response, (n, 4)."""
    log_ratio = prompts.log_ratio(theta)
    policy = np.exp(prompts.log_reference + log_ratio)
    gain = (policy * (prompts.rewards - BETA * log_ratio)).sum(1)
    gain -= (np.exp(prompts.log_reference) * prompts.rewards).sum(1)
    costs = prompts.costs
    one = costs[np.arange(len(prompts)), prompts.respond(theta, draws)]
    return np.column_stack([gain, (policy * costs).sum(1), (policy * costs**2).sum(1), one])


def _summary(kappa: float, table: Array) -> HeldOut:
    gain, mean, square = table[:, :3].mean(0)
    return HeldOut(kappa, float(gain), float(mean), float(np.sqrt(max(square - mean**2, 0.0))), table[:, 3])
