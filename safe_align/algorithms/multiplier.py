"""Lagrange multipliers of constraints: one rises while its cost is above the threshold, and falls below it.

A rule says how far it moves. All of them take the violation, which is a bound on the expected cost minus the threshold.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

LIMIT = 1e12  # lambda and 1 / lambda stay within: the log-space ascent is faster than exponential, and would overflow
GROWTH = 4.0  # a Newton step takes lambda at most this many times further
NARROW = 0.01  # multipliers this near each other say no more where the optimum lies


class Rule(Protocol):
    """How a multiplier moves."""

    def __call__(self, value: float, violation: float, variance: float) -> float:
        """The next multiplier, from this one, the violation, and the variance of the costs."""


@dataclass
class LogGradient:
    """Gradient ascent on log lambda, as in safe-rlhf: log lambda += lr x lambda x violation. It never reaches 0."""

    lr: float

    def __call__(self, value: float, violation: float, variance: float) -> float:
        """See `Rule`."""
        bound = math.log(LIMIT)
        start = math.log(max(value, 1 / LIMIT))
        return math.exp(max(-bound, min(start + self.lr * value * violation, bound)))


@dataclass
class Projected:
    """Gradient ascent on lambda, held at 0: lambda = max(0, lambda + lr x violation)."""

    lr: float

    def __call__(self, value: float, violation: float, variance: float) -> float:
        """See `Rule`."""
        return max(0.0, value + self.lr * violation)


@dataclass
class PID:
    """A controller (arXiv:2007.03964, algorithm 2): lambda = max(0, Kp P + I + Kd D), with averages free of bias.

    P is a running mean of the violation, I its sum times Ki and not below 0, and D the rise of the running mean over
    `delay` rounds. A running mean that starts at 0 is too near 0 at first; dividing by 1 - smoothing^rounds mends that,
    where D would else see a rise at the start that is none.
    """

    kp: float = 0.1
    ki: float = 0.01
    kd: float = 0.01
    smoothing: float = 0.95
    delay: int = 10
    integral: float | None = None  # starts at lambda
    average: float = 0.0
    rounds: int = 0
    past: list[float] = field(default_factory=list)

    def __call__(self, value: float, violation: float, variance: float) -> float:
        """See `Rule`."""
        self.rounds += 1
        self.average = self.smoothing * self.average + (1 - self.smoothing) * violation
        mean = self.average / (1 - self.smoothing**self.rounds)
        before = value if self.integral is None else self.integral
        self.integral = max(0.0, before + self.ki * violation)
        rise = max(0.0, mean - self.past[0]) if self.past else 0.0
        self.past = [*self.past, mean][-max(self.delay, 1) :]
        return max(0.0, self.kp * mean + self.integral + self.kd * rise)


@dataclass
class Newton:
    """Newton's method on the dual: lambda += beta x violation / variance, the dual's curvature being variance / beta.

    For max E r - beta KL s.t. E c <= d the dual D(lambda) = beta log E exp((r - lambda (c - d)) / beta) is convex with
    D' = d - E c and D'' = Var(c) / beta. A full step may overshoot without end, so it stays within the multipliers
    last seen to violate and to obey, and grows at most `GROWTH` times; where it would leave, their middle is taken.
    Costs are noisy and the policy lags, so what was seen is forgotten when it is contradicted.
    """

    beta: float
    low: float = 0.0  # the largest multiplier seen to violate
    high: float | None = None  # the smallest seen to obey

    def __call__(self, value: float, violation: float, variance: float) -> float:
        """See `Rule`."""
        if violation > 0:
            self.low = value
            self.high = None if self.high is not None and self.high <= value else self.high
        else:
            self.high = value
            self.low = 0.0 if self.low >= value else self.low
        step = max(0.0, value + self.beta * violation / max(variance, 1e-12))
        if self.high is None:
            return min(step, GROWTH * max(value, 1.0))
        if self.low <= step <= self.high:
            return step
        if self.high - self.low < NARROW * self.high:  # and yet the optimum is elsewhere: the world has moved
            self.low, self.high = (0.0, self.high) if violation <= 0 else (self.low, None)
            return step if self.high is not None else min(step, GROWTH * max(value, 1.0))
        return (self.low + self.high) / 2


@dataclass
class Multiplier:
    """A constraint's multiplier.

    Args:
        threshold: what the expected cost of a response must not exceed.
        init: lambda at the start.
        max: largest lambda, or None.
        delay: rounds before it moves.
        window: how many of the newest costs the mean is over, all processes together.
        rule: how it moves.
    """

    threshold: float
    init: float = 1.0
    max: float | None = None
    delay: int = 0
    window: int = 128
    rule: Rule = field(default_factory=lambda: LogGradient(0.1))
    value: float = field(init=False)
    rounds: int = field(init=False, default=0)
    costs: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        self.value = self.init
        self.costs = deque(maxlen=self.window)

    @property
    def mean_cost(self) -> float:
        """The mean over the window."""
        return sum(self.costs) / len(self.costs) if self.costs else math.nan

    def update(self, costs: Sequence[float]) -> float:
        """Take in a round's costs, of all processes, and move once by the window's mean; return lambda."""
        self.costs.extend(costs)
        if not self.costs:
            self.rounds += 1
            return self.value
        mean = self.mean_cost
        spread = sum((cost - mean) ** 2 for cost in self.costs) / len(self.costs)
        return self.move(mean - self.threshold, spread)

    def move(self, violation: float, variance: float) -> float:
        """Move once, unless it is too early; return lambda."""
        if self.rounds >= self.delay:
            self.value = min(self.rule(self.value, violation, variance), math.inf if self.max is None else self.max)
        self.rounds += 1
        return self.value

    def state(self) -> dict[str, Any]:
        """JSON values."""
        rule: Any = self.rule
        return {'value': self.value, 'rounds': self.rounds, 'costs': list(self.costs), 'rule': asdict(rule)}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        self.value, self.rounds = state['value'], state['rounds']
        self.costs = deque(state['costs'], maxlen=self.window)
        for name, value in state['rule'].items():
            setattr(self.rule, name, value)
