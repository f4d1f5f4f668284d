"""The best policy of a sample of prompts whose cost, taken at mean + kappa x deviation, keeps a threshold.

    max J(Theta) = E [r - beta log(pi / reference)] - decay   s.t.   h(Theta) = m + kappa s + constant - threshold <= 0

with m the mean and s the standard deviation of the cost of one response to one prompt, both as full expectations over
responses: the first step of HC-RLHF (arXiv:2506.08266). The decay is tau |Theta|^2 / (2 n) without the constant
feature and without what is common to all archetypes. Without it the optimum of a small sample follows the noise
features, and is harmless for being scattered.

By sequential quadratic programming with the exact Hessian of the Lagrangian; where that is not positive, with the
Fisher matrix F in its place, since the gradient of the divergence is F Theta.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

from safe_align.algorithms.pessimism import FLOOR
from safe_align.testbeds.safe_bandit import BETA, THRESHOLD, Array, Prompts

DECAY = 0.1  # tau; candidates come out as those of an optimiser that stops after 100 steps, the published ones
TOLERANCE = 1e-9  # of twice the gain that the model promises; its root, of the violation
MAX_STEPS = 60
LEAST_DAMPING = 1e-7  # of the largest element of the Hessian, on its diagonal
SIZES = tuple(0.5**power for power in range(8))


class Point(NamedTuple):
    """Objective and constraint at a Theta, with their gradients, (F, K) each, and what the Hessian needs."""

    objective: float
    violation: float
    objective_gradient: Array
    violation_gradient: Array
    mean: float
    std: float
    std_gradient: Array
    policy: Array
    gain: Array
    """The reward less the price of divergence, (n, K)."""
    pessimistic: Array
    """The cost whose expectation has the gradient of m + kappa s, (n, K)."""


def evaluate(prompts: Prompts, theta: Array, kappa: float, constant: float = 0.0) -> Point:
    """J and h on `prompts`, exactly.

    The gradient of m + kappa s is that of the expected pessimistic cost c + kappa (c^2 - 2 c m) / (2 s).
    """
    log_ratio = prompts.log_ratio(theta)
    policy = np.exp(prompts.log_reference + log_ratio)
    gain, costs = prompts.rewards - BETA * log_ratio, prompts.costs
    mean = float((policy * costs).sum() / len(prompts))
    std = max(float(np.sqrt(max((policy * costs**2).sum() / len(prompts) - mean**2, 0.0))), FLOOR)
    spread = (costs**2 - 2 * mean * costs) / (2 * std)
    std_gradient = _gradient(prompts, policy, spread)
    decay = _decay(len(prompts), theta)
    return Point(
        float((policy * gain).sum() / len(prompts)) - float((decay * theta).sum()) / 2,
        mean + kappa * std + constant - THRESHOLD, _gradient(prompts, policy, gain) - decay,
        _gradient(prompts, policy, costs) + kappa * std_gradient, mean, std, std_gradient, policy, gain,
        costs + kappa * spread,
    )  # fmt: skip


def best_policy(prompts: Prompts, kappa: float, constant: float = 0.0, start: Array | None = None) -> Array:
    """Theta (F, K) of a local optimum, reached from `start`, the reference's if None.

    Where no policy keeps the threshold, it is one of a small violation. Theta's first column is that of `start`: a
    softmax does not see what is added to all columns.
    """
    theta = (prompts.start() if start is None else start).copy()
    squares = _squares(prompts.features)
    point, price, multiplier, damping = evaluate(prompts, theta, kappa, constant), 1.0, 0.0, LEAST_DAMPING
    for _ in range(MAX_STEPS):
        factor = _factor(squares, point, kappa, multiplier, damping)
        step, multiplier, length = _direction(point, factor)
        if length < TOLERANCE and (point.violation < TOLERANCE**0.5 or damping > LEAST_DAMPING):
            break
        price = max(price, 1.5 * multiplier)
        slope = -float((point.objective_gradient * step).sum()) - price * max(point.violation, 0.0)
        for size in SIZES:
            found = evaluate(prompts, theta + size * step, kappa, constant)
            if _merit(found, price) <= _merit(point, price) + 1e-4 * size * min(slope, 0.0):
                theta, point, damping = theta + size * step, found, max(damping / 10, LEAST_DAMPING)
                break
        else:
            damping *= 100
    return theta


def _merit(point: Point, price: float) -> float:
    return price * max(point.violation, 0.0) - point.objective


def _gradient(prompts: Prompts, policy: Array, values: Array) -> Array:
    """Of the expectation of values (n, K), taken as if they did not depend on Theta: (F, K)."""
    centred = policy * (values - (policy * values).sum(1, keepdims=True))
    gradient: Array = prompts.features.T @ centred / len(prompts)
    return gradient


def _decay(num_prompts: int, theta: Array) -> Array:
    """The gradient of the decay, (F, K)."""
    pull = DECAY / num_prompts * (theta - theta.mean(1, keepdims=True))
    pull[0] = 0.0
    return pull


def _squares(features: Array) -> Array:
    """The products phi phi', flattened: (n, F) -> (n, F F)."""
    return (features[:, :, None] * features[:, None, :]).reshape(len(features), -1)


def _factor(squares: Array, point: Point, kappa: float, multiplier: float, damping: float) -> tuple[Array, bool]:
    """Cholesky's factor of the Hessian of -J + lambda h over Theta's columns but the first.

    m and s curve along their own gradients too, by -kappa (m' m'^T + s' s'^T) / s. Up to multiples of h' = m' + kappa
    s', along which the constraint fixes the step, that is -kappa (1 + kappa^2) s' s'^T / s.
    """
    policy = point.policy[:, 1:]
    covariance = -policy[:, :, None] * policy[:, None, :]
    diagonal = np.arange(policy.shape[1])
    covariance[:, diagonal, diagonal] += policy
    values = point.gain - multiplier * point.pessimistic
    pull = (point.policy * (values - (point.policy * values).sum(1, keepdims=True)))[:, 1:]
    residual = -pull[:, :, None] * policy[:, None, :] - policy[:, :, None] * pull[:, None, :]
    residual[:, diagonal, diagonal] += pull
    std_gradient = point.std_gradient[:, 1:].T.ravel()
    bend = multiplier * kappa * (1 + kappa**2) / point.std * np.outer(std_gradient, std_gradient)
    try:
        return _cholesky(squares, BETA * covariance - residual, bend, damping)
    except linalg.LinAlgError:
        return _cholesky(squares, BETA * covariance, np.zeros_like(bend), max(damping, 1e-6))


def _cholesky(squares: Array, weights: Array, bend: Array, damping: float) -> tuple[Array, bool]:
    num_prompts, k, _ = weights.shape
    num_features = round(squares.shape[1] ** 0.5)
    blocks = (weights.reshape(num_prompts, -1).T @ squares / num_prompts).reshape(k, k, num_features, num_features)
    hessian = blocks.transpose(0, 2, 1, 3).reshape(k * num_features, -1) - bend
    hessian += np.kron(np.eye(k) - 1 / (k + 1), np.diag([0.0] + [DECAY / num_prompts] * (num_features - 1)))
    hessian[np.diag_indices_from(hessian)] += damping * np.abs(hessian).max() + 1e-12
    return linalg.cho_factor(hessian, lower=True, check_finite=False)


def _direction(point: Point, factor: tuple[Array, bool]) -> tuple[Array, float, float]:
    """The step to the optimum of the quadratic model under the linear one of the constraint; lambda; squared length."""
    objective, violation = (g[:, 1:].T.ravel() for g in (point.objective_gradient, point.violation_gradient))
    ascent, normal = linalg.cho_solve(factor, np.column_stack([objective, violation]), check_finite=False).T
    curvature = max(float(violation @ normal), 1e-12)
    multiplier = max(0.0, (point.violation + float(violation @ ascent)) / curvature)
    step = np.zeros_like(point.objective_gradient)
    step[:, 1:] = (ascent - multiplier * normal).reshape(step.shape[1] - 1, -1).T
    # d' H d with H d = J' - lambda h'
    return step, multiplier, float((step * (point.objective_gradient - multiplier * point.violation_gradient)).sum())
