"""Evidence that grows with each cost, and may be looked at after any of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds import CAP, Array, as_row, check_delta, check_range, unit_rows
from safe_align.config import UserError

HIGHEST = math.log(np.finfo(float).max)  # an e-value is reported up to here; its logarithm goes on


@dataclass
class EProcess:
    """A bet against the opposite of a claim about the expected cost, paid out cost by cost.

        E_t = prod_{i <= t} (1 - l_i (x_i - m)),   x and m the cost and the threshold on the scale [0, 1]
        l_i = min(sqrt(2 ln(1 / delta) / (i ln(1 + i) v_{i-1})), 1 / (2 (1 - m))),   v as in `bounds.betting`

    Claim 'at most': the expected cost is at most the threshold. If it is not, E is a supermartingale from 1, and the
    probability that E ever comes to 1 / delta is at most delta (Ville): once it has, the claim is established, and no
    later cost takes that back. It has just when `bounds.betting_anytime` is at most the threshold. Claim 'above': the
    alarm, the same with costs and threshold turned round. Source: arXiv:2010.09686; arXiv:2210.01948.

    What is refuted is that *every* cost had an expectation, given those before it, on the wrong side: costs of one
    policy, or of several that are claimed to be alike. For a policy that changes, start anew.

    Args:
        threshold: in the unit of the costs, between `low` and `high`.
        low: least cost there can be.
        high: largest cost there can be.
        delta: probability of a false claim, at any time.
        claim: 'at most', for a certificate; 'above', for an alarm.
        bet: l, one for all costs, on the scale [0, 1], in place of those above; below 1 / (1 - m).

    Raises:
        UserError: a range, a delta, a threshold or a bet that is none.
    """

    threshold: float
    low: float
    high: float
    delta: float = 0.05
    claim: Literal['at most', 'above'] = 'at most'
    bet: float | None = None
    num_costs: int = field(init=False, default=0)
    total: float = field(init=False, default=0.0)
    squares: float = field(init=False, default=0.0)
    log_value: float = field(init=False, default=0.0)
    log_best: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_range(self.low, self.high)
        if self.claim not in ('at most', 'above'):
            raise UserError(f"claim: expected 'at most' or 'above'; found {self.claim!r}")
        if not self.low < self.threshold < self.high:
            raise UserError(f'threshold: expected one between {self.low} and {self.high}; found {self.threshold}')
        if self.bet is not None and not 0 < self.bet * (1 - self._unit_threshold) < 1:
            raise UserError(f'bet: expected one between 0 and {1 / (1 - self._unit_threshold):g}; found {self.bet}')

    @property
    def value(self) -> float:
        """The e-value now; at most the largest float."""
        return math.exp(min(self.log_value, HIGHEST))

    @property
    def p_value(self) -> float:
        """1 over the largest e-value so far, at most 1: a p-value of the claim's opposite, whenever it is looked at."""
        return math.exp(-self.log_best)

    @property
    def established(self) -> bool:
        """Whether the e-value has ever come to 1 / delta."""
        return self.log_best >= -math.log(self.delta)

    def update(self, costs: ArrayLike) -> Array:
        """Take in costs (n,), in their unit and order; return the e-value after each, (n,). None may be given.

        Raises:
            UserError: costs of another shape, not finite or outside [low, high]; then none is taken in.
        """
        x = unit_rows(as_row(costs), delta=self.delta, low=self.low, high=self.high, at_least=0)[0]
        path = [self._step(float(one_cost)) for one_cost in (x if self.claim == 'at most' else 1 - x)]
        return np.exp(np.minimum(path, HIGHEST))

    def state(self) -> dict[str, float]:
        """JSON values, of what has been seen."""
        return {name: getattr(self, name) for name in ('num_costs', 'total', 'squares', 'log_value', 'log_best')}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        self.num_costs = int(state['num_costs'])
        self.total, self.squares = state['total'], state['squares']
        self.log_value, self.log_best = state['log_value'], state['log_best']

    @property
    def _unit_threshold(self) -> float:
        share = (self.threshold - self.low) / (self.high - self.low)
        return share if self.claim == 'at most' else 1 - share

    def _step(self, x: float) -> float:
        """Bet, see the cost, remember it; the logarithm of the e-value."""
        m, t = self._unit_threshold, self.num_costs + 1
        bet = self.bet
        if bet is None:
            variance = (0.25 + self.squares) / t
            bet = min(math.sqrt(-2 * math.log(self.delta) / (variance * t * math.log1p(t))), CAP / (1 - m))
        self.log_value += math.log1p(-bet * (x - m))
        self.log_best = max(self.log_best, self.log_value)
        self.num_costs, self.total = t, self.total + x
        self.squares += (x - (0.5 + self.total) / (t + 1)) ** 2
        return self.log_value
