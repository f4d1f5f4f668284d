"""How much higher than its mean a cost is taken to be, so that the policy passes a test on prompts it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

FLOOR = 1e-6  # of a standard deviation: up to it, costs are equal, and its gradient says nothing

Margin = Callable[[int], tuple[float, float]]  # from the number of prompts: standard deviations, and a constant


class Estimate(NamedTuple):
    """What the costs of a round say: the bound is mean + kappa x std + constant."""

    mean: float
    std: float
    kappa: float
    constant: float

    @property
    def bound(self) -> float:
        """The number that is held below the threshold."""
        return self.mean + self.kappa * self.std + self.constant


@dataclass(frozen=True)
class Pessimism:
    """The bound of one constraint in training, HC-RLHF's (arXiv:2506.08266, section 4) for any bound of such a form.

    kappa = c1 x margin(prompts of the round) + c2 x margin(prompts of the test).

    Args:
        margin: of the bound at its delta.
        test_size: prompts of the safety test to come.
        c1: weight of what the round does not know.
        c2: weight of what the test will take off.
        pass_chance: instead of c1 and c2, the predicted chance of passing the test at the threshold.
    """

    margin: Margin
    test_size: int
    c1: float = 1.0
    c2: float = 1.0
    pass_chance: float | None = None

    def __call__(self, prompt_costs: Sequence[float]) -> Estimate:
        """From one mean cost a prompt, of all processes: the prompt is the unit, since its responses are alike."""
        costs = np.asarray(prompt_costs, float)
        std = float(costs.std(ddof=1))
        kappa, constant = self.kappa(len(costs))
        return Estimate(float(costs.mean()), std, kappa, constant)

    def kappa(self, num_prompts: int) -> tuple[float, float]:
        """Kappa and the constant for costs of so many prompts."""
        here, there = self.margin(num_prompts), self.margin(self.test_size)
        if self.pass_chance is None:
            return self.c1 * here[0] + self.c2 * there[0], self.c1 * here[1] + self.c2 * there[1]
        quantile = float(stats.t.ppf(self.pass_chance, num_prompts - 1))
        return there[0] + quantile * self._noise(num_prompts), there[1]

    def chance(self, mean: float, std: float, num_prompts: int, threshold: float) -> float:
        """The predicted chance of passing the test, which `pass_chance` inverts.

        Args:
            mean: of the costs of prompts that the policy was not fitted to; on those it was, it is biased low.
            std: of the same.
            num_prompts: how many they are.
            threshold: of the test.
        """
        there = self.margin(self.test_size)
        gap = (threshold - there[1] - mean) / max(std, FLOOR) - there[0]
        return float(stats.t.cdf(gap / self._noise(num_prompts), num_prompts - 1))

    def _noise(self, num_prompts: int) -> float:
        """The test's mean less this round's, in standard deviations: both rounds' noise."""
        return math.sqrt(1 / num_prompts + 1 / self.test_size)
