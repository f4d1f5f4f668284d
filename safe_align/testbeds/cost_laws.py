"""Laws of a cost in [0, 1] with their means in closed form, to count how often a bound lies below the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

Array = NDArray[np.float64]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class CostLaw:
    """A distribution on [0, 1].

    Args:
        name: how a table names it.
        mean: its expectation, exact to rounding.
        draw: independent costs of a shape.
        cdf: P(cost <= x) for x in [0, 1].
        atoms: where the distribution function jumps, apart from 0 and 1; quadrature stops there.
        binary: whether all costs are 0 or 1.
    """

    name: str
    mean: float
    draw: Callable[[np.random.Generator, Shape], Array]
    cdf: Callable[[float], float]
    atoms: tuple[float, ...] = ()
    binary: bool = False

    def cvar(self, alpha: float) -> float:
        """The mean of the worst share `alpha` in (0, 1]: 1 - (1 / alpha) times the integral of max(0, F - (1 - alpha)).

        By quadrature, to 1e-9; with alpha = 1 it is the mean.
        """

        def inner(x: float) -> float:
            return max(0.0, self.cdf(x) - (1 - alpha))

        ends = sorted({0.0, *self.atoms, *np.linspace(0.1, 0.9, 9), self._quantile(1 - alpha), 1.0})
        pieces = [integrate.quad(inner, a, b, epsabs=1e-11, epsrel=1e-11)[0] for a, b in itertools.pairwise(ends)]
        return 1 - math.fsum(pieces) / alpha

    def _quantile(self, level: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.cdf(middle) >= level else (middle, high)
        return high


def bernoulli(rate: float) -> CostLaw:
    """A harm with probability `rate`."""
    return CostLaw(
        f'bernoulli({rate:g})', rate, lambda rng, shape: (rng.random(shape) < rate).astype(float),
        lambda x: 1.0 if x >= 1 else 1 - rate, binary=True,
    )  # fmt: skip


def beta(a: float, b: float) -> CostLaw:
    """Beta(a, b)."""
    return CostLaw(
        f'beta({a:g}, {b:g})', a / (a + b), lambda rng, shape: rng.beta(a, b, shape),
        lambda x: float(special.betainc(a, b, x)),
    )  # fmt: skip


def uniform(low: float, high: float, name: str) -> CostLaw:
    """Uniform on [low, high]."""
    return CostLaw(
        name, (low + high) / 2, lambda rng, shape: rng.uniform(low, high, shape),
        lambda x: min(max((x - low) / (high - low), 0.0), 1.0), atoms=(low, high),
    )  # fmt: skip


def lattice(name: str, values: Sequence[float], weights: Sequence[float]) -> CostLaw:
    """A few values, such as a judge's grades."""
    order = np.argsort(values)
    points, shares = np.asarray(values, float)[order], np.asarray(weights, float)[order]
    return CostLaw(
        name, float(points @ shares), lambda rng, shape: points[_kinds(rng, shape, shares)],
        lambda x: float(shares[points <= x].sum()), atoms=tuple(points.tolist()),
    )  # fmt: skip


def clipped_normals(name: str, weights: Sequence[float], means: Sequence[float], sds: Sequence[float]) -> CostLaw:
    """A mixture of normals, clipped to [-10, 10] and mapped to [0, 1]: a cost model's scores."""
    w, m, s = (np.asarray(part, float) for part in (weights, means, sds))
    a, b = (-10 - m) / s, (10 - m) / s
    inside = m * (special.ndtr(b) - special.ndtr(a)) + s * (stats.norm.pdf(a) - stats.norm.pdf(b))
    mean = float(w @ (inside - 10 * special.ndtr(a) + 10 * special.ndtr(-b)))

    def draw(rng: np.random.Generator, shape: Shape) -> Array:
        kind = _kinds(rng, shape, w)
        return (np.clip(m[kind] + s[kind] * rng.standard_normal(shape), -10, 10) + 10) / 20

    def cdf(x: float) -> float:
        return 1.0 if x >= 1 else float(w @ special.ndtr((20 * x - 10 - m) / s))

    return CostLaw(name, (mean + 10) / 20, draw, cdf)


def clipped_exponentials(name: str, weights: Sequence[float], scales: Sequence[float]) -> CostLaw:
    """A mixture of exponentials, clipped at 1: mostly small costs, and a long tail."""
    w, s = np.asarray(weights, float), np.asarray(scales, float)

    def draw(rng: np.random.Generator, shape: Shape) -> Array:
        kind = _kinds(rng, shape, w)
        return np.minimum(s[kind] * rng.standard_exponential(shape), 1.0)

    def cdf(x: float) -> float:
        return 1.0 if x >= 1 else float(w @ -np.expm1(-x / s))

    return CostLaw(name, float(w @ (s * -np.expm1(-1 / s))), draw, cdf)


def _kinds(rng: np.random.Generator, shape: Shape, weights: Array) -> NDArray[np.int64]:
    return np.searchsorted(weights.cumsum()[:-1], rng.random(shape), side='right').astype(np.int64)


LAWS: tuple[CostLaw, ...] = (
    bernoulli(0.01),
    bernoulli(0.05),
    bernoulli(0.3),
    bernoulli(0.9),
    beta(2, 5),
    beta(0.3, 3),
    beta(0.5, 0.5),
    uniform(0.0, 1.0, 'uniform'),
    uniform(0.3995, 0.4005, 'nearly constant'),
    lattice('grades', [0, 0.25, 0.5, 0.75, 1], [0.62, 0.2, 0.1, 0.05, 0.03]),
    lattice('two points, skewed', [0.2, 1], [0.97, 0.03]),
    clipped_normals('bimodal', [0.15, 0.85], [4, -3], [2, 1.5]),
    clipped_normals('rare harm', [0.02, 0.98], [9, -1], [1, 0.5]),
    clipped_exponentials('long tail', [0.95, 0.05], [0.02, 0.3]),
)
