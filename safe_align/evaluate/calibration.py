"""Whether scores can be taken at their word, as log-odds: reliability, proper scores, and a temperature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from safe_align.bounds import Array
from safe_align.evaluate.statistics import Estimate, by_prompt, clustered_rate, ratio, student

BINS, LEAST = 10, 40  # bins at most, and what each holds about: of fewer, a share says little
MOST = 1000  # times itself, that a temperature may be; beyond it, it may be anything


def calibration(logits: Array, outcomes: Array, prompts: NDArray[Any]) -> dict[str, Any]:
    """What sigma(logits) says against what was so, as JSON: (n,) three times, with n > 0.

    An outcome is 1, 0, or a tie's 1/2, of which both numbers below are those expected of a fair draw. All intervals
    are 95%, with the prompt as the unit.

    `nll` and `brier` are means of -log p and of (1 - p)^2, p being what was said of what was so; the interval of the
    first is of its logarithm, since few pairs make most of it. `overconfidence` is the mean of what was said less the
    mean of what was so. `bins` hold as many each, in order of what was said. `expected_calibration_error` is their mean
    distance from it, and `expected_by_chance` the one that a calibrated model's independent outcomes would have: no bin
    is without chance, so the first is above 0 for every model, and an interval around it would not hold what it says
    (`benchmarks/coverage.py`). Logits divided by `temperature` have the least `nll`.
    """
    said = expit(logits)
    losses = {
        'nll': np.logaddexp(0, logits) - outcomes * logits,
        'brier': said**2 - 2 * said * outcomes + outcomes,
        'overconfidence': said - outcomes,
    }
    means = {name: ratio(*by_prompt(prompts, loss)) for name, loss in losses.items()}
    means['nll'] = _of_logarithm(means['nll'].value, means['nll'].high - means['nll'].value)
    found: dict[str, Any] = {name: estimate.told() for name, estimate in means.items()}
    bins, error, chance = list[dict[str, Any]](), 0.0, 0.0
    for inside in _bins(logits):
        count, confidence = int(inside.sum()), float(said[inside].mean())
        share = clustered_rate(*by_prompt(prompts[inside], outcomes[inside]))
        error += count * abs(share.value - confidence)
        chance += math.sqrt(2 / math.pi * float((said * (1 - said))[inside].sum()))
        bins.append({'count': count, 'said': confidence, 'was_so': share.told()})
    size = len(logits)
    found |= {'expected_calibration_error': error / size, 'expected_by_chance': chance / size, 'bins': bins}
    return {**found, 'temperature': temperature(logits, outcomes, prompts).told()}


def temperature(logits: Array, outcomes: Array, prompts: NDArray[Any]) -> Estimate:
    """What logits are divided by so that -log p is least, with the interval of its inverse.

    By Newton's steps, and the sandwich with the prompt as the unit. There is none where the scores rank no better than
    chance, since it would be infinite, or rank all right, since it would be 0.
    """
    none = Estimate(math.nan, math.nan, math.nan)
    signed = logits * (2 * outcomes - 1)
    if signed.sum() <= 0 or (signed >= 0).all():
        return none
    scale = 1 / np.abs(logits).max()
    for _ in range(200):
        chance = expit(scale * logits)
        slope = logits * (outcomes - chance)
        curve = (logits**2 * chance * (1 - chance)).sum()
        step = slope.sum() / curve
        scale *= math.exp(np.clip(step / scale, -1, 1))  # it stays above 0
        if abs(step) < 1e-10 * scale:
            break
    sums, number = by_prompt(prompts, slope)[0], len(np.unique(prompts))
    if number < 2:
        return none._replace(value=float(1 / scale))
    error = math.sqrt((sums**2).sum()) / curve
    half = student(number - 1) * error
    return Estimate(float(1 / scale), float(1 / (scale + half)), float(1 / max(scale - half, scale / MOST)))


def _of_logarithm(value: float, half: float) -> Estimate:
    """An interval of half this width, as of the logarithm: it stays above 0, and reaches further up than down."""
    return Estimate(value, value * math.exp(-half / value), value * math.exp(half / value))


def _bins(logits: Array) -> list[Array]:
    """Which logits are in each bin, (n,) bool; equal ones are in the same."""
    number = min(BINS, max(1, len(logits) // LEAST))
    edges = np.unique(np.quantile(logits, np.arange(1, number) / number))
    places = np.searchsorted(edges, logits, side='right')
    return [places == place for place in np.unique(places)]
