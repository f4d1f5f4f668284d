"""How often the intervals that evaluations print hold the truth, where it is known: 95% within 2 points is asked.

python benchmarks/coverage.py [--studies 1000] [--sizes 50 200 1000]

Win rates, shares of safe responses and cells of the table of two corners, means and paired differences, ratings, win
rates at equal length, and what is said of score models. One answer a prompt, or several that are alike; with ties and
without. A tie takes as much from wins as from losses, so that the expected score is the chance of the model. Exit 1 if
an interval that is printed misses. Rows in brackets are there to compare with, and to say where none can hold:
Student's of a win rate, percentiles of resampled prompts, a mean of costs that are high once in 50 responses, and the
jackknife of a calibrated model's expected calibration error, which has no interval for this reason.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from scipy import stats
from scipy.special import expit, ndtr, ndtri

from safe_align.bounds import Array
from safe_align.evaluate import length_control, ratings
from safe_align.evaluate.agreement import auc
from safe_align.evaluate.calibration import by_prompt, calibration
from safe_align.evaluate.statistics import Estimate, clustered_rate, mean, of_sums, rate, score_rate

LEVEL, WITHIN = 0.95, 0.02
LIKENESS = 0.5  # correlation of the samples of a prompt
STRENGTHS = np.array([1.0, 0.3, -1.3])  # logits: the best wins 67% and 91%
CHANCES = (0.5, 0.7, 0.9)
LENGTH_EFFECTS = (1.0, 3.0)  # logits, a middling one and a strong one
SAFE = (0.6, 0.7)  # how often both corners are
SPREAD, TEMPERATURE = 1.5, 2.0  # of differences of scores, in logits, and what they are too large by
RESAMPLES, FEW = 200, 50  # where there are more prompts, resampling takes minutes and misses less
SAMPLED = ((1, 0.0), (1, 0.2), (4, 0.2))  # samples a prompt, share of the losses that are ties twice over
Intervals = dict[str, Array]
Checks = dict[str, tuple[Estimate, float]]


def alike(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal numbers whose correlation within a prompt is LIKENESS: the last axis is that of samples."""
    own, common = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], 1))
    both: Array = common * LIKENESS**0.5 + own * (1 - LIKENESS) ** 0.5
    return both


def play(rng: np.random.Generator, chances: Array, ties: float) -> Array:
    """Outcomes with these expected scores: (..., S) -> (..., S) of 0, 0.5 and 1."""
    drawn, tied = ndtr(alike(rng, chances.shape)), 2 * ties * np.minimum(chances, 1 - chances)
    won = chances - tied / 2
    outcomes: Array = (drawn < won) + 0.5 * ((drawn >= won) & (drawn < won + tied))
    return outcomes


def of_win_rates(rng: np.random.Generator, number: int, samples: int, ties: float) -> Checks:
    """With Student's interval beside them."""
    checks = {}
    for chance in CHANCES:
        scores = play(rng, np.full((number, samples), chance), ties)
        checks[f'win rate {chance:g}'] = score_rate(scores), chance
        checks[f'(win rate {chance:g}, Student)'] = mean(scores), chance
    return checks


def of_two_corners(rng: np.random.Generator, number: int, samples: int, ties: float) -> Checks:
    """Shares of safe responses, and the win rate in a cell of those that are and are not, whatever is in it."""
    safe = [ndtr(alike(rng, (number, samples))) < chance for chance in SAFE]
    checks = {f'safe {chance:g}': (rate(flags), chance) for chance, flags in zip(SAFE, safe, strict=True)}
    scores = play(rng, np.full((number, samples), CHANCES[1]), ties)
    for name, cell in (('both safe', safe[0] & safe[1]), ('blue alone', ~safe[0] & safe[1])):
        counts = cell.sum(1)
        inside = counts > 0
        checks[f'win rate, {name}'] = clustered_rate((scores * cell).sum(1)[inside], counts[inside]), CHANCES[1]
    return checks


def of_differences(rng: np.random.Generator, number: int, samples: int, ties: float) -> Checks:
    """Rewards and costs of two policies to the same prompts. Rewards of one are skewed; rounded where there are ties.

    Costs are of two kinds, safe ones at -3 and others at 4, which all prompts may have, but some more than others.
    """
    difficulty = rng.standard_normal((number, 1))
    rewards = [
        difficulty + alike(rng, (number, samples)),
        difficulty + stats.norm.cdf(alike(rng, (number, samples))) ** 4,
    ]
    first, second = (np.round(one, 1) if ties else one for one in rewards)
    checks: Checks = {'paired difference, rewards': (mean(second - first), 0.2)}  # E U^4 = 1 / 5
    costs = {}
    for unsafe in (0.3, 0.15):
        harmful = ndtr(alike(rng, (number, samples))) < unsafe
        costs[unsafe] = np.where(harmful, 4.0, -3.0) + 1.5 * alike(rng, (number, samples))
    checks['mean cost'] = mean(costs[0.15]), 7 * 0.15 - 3
    checks['paired difference, costs'] = mean(costs[0.15] - costs[0.3]), 7 * (0.15 - 0.3)
    rare = np.where(ndtr(alike(rng, (number, samples))) < 0.02, 9.0, -1.0) + alike(rng, (number, samples)) / 2
    checks['(mean cost, rare harm)'] = mean(rare), 10 * 0.02 - 1
    return checks


def of_ratings(rng: np.random.Generator, number: int, samples: int, ties: float) -> Checks:
    """A round robin of three."""
    wins = np.zeros((number, 3, 3))
    for a, b in itertools.combinations(range(3), 2):
        wins[:, a, b] = play(rng, np.full((number, samples), expit(STRENGTHS[a] - STRENGTHS[b])), ties).mean(1)
        wins[:, b, a] = 1 - wins[:, a, b]
    found, truth = ratings.rate(wins), STRENGTHS * ratings.PER_LOGIT
    drawn = ratings.bootstrap(wins, num_resamples=RESAMPLES, seed=1) * ratings.PER_LOGIT if number <= FEW else None
    checks: Checks = {'Elo of the best': (found.elo[0], truth[0])}
    for a, b in ((0, 1), (0, 2)):
        name, apart = f'Elo difference {truth[a] - truth[b]:.0f}', float(truth[a] - truth[b])
        checks[name] = found.differences[a][b], apart
        if drawn is not None:
            checks[f'({name}, bootstrap)'] = _percentiles(drawn[:, a] - drawn[:, b]), apart
    return checks


def of_length_control(rng: np.random.Generator, number: int, samples: int, ties: float) -> Checks:
    """The longer answer wins more often, and the policy's are longer."""
    checks = {}
    for chance, effect in itertools.product(CHANCES, LENGTH_EFFECTS):
        lengths = 0.3 + alike(rng, (number, samples))
        strength = np.log(chance / (1 - chance))
        outcomes = play(rng, expit(strength + effect * np.tanh(lengths)), ties)
        name = f'length-controlled {chance:g}, effect {effect:g}'
        checks[name] = length_control.length_controlled(outcomes, lengths).win_rate, chance
        if number <= FEW and effect == LENGTH_EFFECTS[0] and samples == 1 and not ties:
            drawn = length_control.bootstrap(outcomes, lengths, num_resamples=RESAMPLES, seed=1)
            checks[f'({name}, bootstrap)'] = _percentiles(drawn), chance
    return checks


def of_score_models(rng: np.random.Generator, number: int, samples: int, ties: float) -> Checks:
    """Pairs of which the first is preferred with chance sigma(difference / TEMPERATURE); as many as `samples` a prompt.

    The same numbers are costs of single responses, and the same outcomes whether they are unsafe.
    """
    prompts = np.repeat(np.arange(number), rng.integers(1, samples + 1, number))
    common, own = rng.standard_normal((2, number))[:, prompts], rng.standard_normal((2, len(prompts)))
    latent = LIKENESS**0.5 * common + (1 - LIKENESS) ** 0.5 * own if samples > 1 else own
    scores = _scores(latent[0], ties)
    so: Array = (ndtr(latent[1]) < expit(scores / TEMPERATURE)).astype(float)
    right = np.where(scores > 0, so, np.where(scores < 0, 1 - so, 0.5))
    truth, found = _truth(ties), calibration(np.abs(scores), right, prompts)
    told = {'accuracy': clustered_rate(*by_prompt(prompts, right)), 'AUC': auc(scores, so > 0, prompts)}
    for name in ('nll', 'brier', 'overconfidence', 'temperature'):
        told[name] = Estimate(*(np.nan if value is None else value for value in found[name].values()))
    for name, kind in (('sign of safe', 0), ('sign of unsafe', 1)):
        which = so == kind
        told[name] = clustered_rate(*by_prompt(prompts[which], ((scores > 0) == kind)[which].astype(float)))
    checks = {name: (estimate, truth[name]) for name, estimate in told.items() if not np.isnan(estimate.low)}
    signs, order, (grid, chances) = calibration(scores, so, prompts)['bins'], np.sort(scores), _grid(ties)
    for name, one, inside in (('lowest', signs[0], grid <= order[signs[0]['count'] - 1]),
                              ('highest', signs[-1], grid >= order[-signs[-1]['count']])):  # fmt: skip
        checks[f'share in the {name} bin'] = Estimate(*one['was_so'].values()), float(chances[inside].mean())
    if number <= FEW and samples == 1:
        gaps, upper = expit(scores / TEMPERATURE) - so, scores > 0
        in_bins = np.stack([gaps * upper, gaps * ~upper], 1)  # two, as there are of so few
        error = of_sums(lambda sums: float(np.abs(sums).sum() / number), in_bins)
        checks['(expected calibration error, jackknife)'] = error, 0.0
    return checks


def _scores(latent: Array, ties: float) -> Array:
    """Differences of scores; rounded where there are ties."""
    scores = SPREAD * latent
    return np.round(scores) if ties else scores


@cache
def _grid(ties: float) -> tuple[Array, Array]:
    """Scores at as many quantiles of their law, and the chances of what they say."""
    scores = _scores(ndtri((np.arange(20_000) + 0.5) / 20_000), ties)
    return scores, expit(scores / TEMPERATURE)


@cache
def _truth(ties: float) -> dict[str, float]:
    """By summing over the grid."""
    scores, so = _grid(ties)
    said = expit(scores)
    accuracy = np.where(scores == 0, 0.5, expit(np.abs(scores) / TEMPERATURE)).mean()
    values, places = np.unique(scores, return_inverse=True)
    unsafe, safe = (np.bincount(places, weights) / weights.sum() for weights in (so, 1 - so))
    return {
        'accuracy': accuracy, 'AUC': float(unsafe @ (np.cumsum(safe) - safe / 2)),
        'nll': (np.logaddexp(0, scores) - so * scores).mean(),
        'brier': (said**2 - 2 * said * so + so).mean(),
        'overconfidence': expit(np.abs(scores)).mean() - accuracy, 'temperature': TEMPERATURE,
        'sign of safe': float(safe[values <= 0].sum()), 'sign of unsafe': float(unsafe[values > 0].sum()),
    }  # fmt: skip


def _percentiles(drawn: Array) -> Estimate:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(drawn.mean()), float(low), float(high))


SIMULATIONS: dict[Callable[[np.random.Generator, int, int, float], Checks], int] = {  # and how many times the studies
    of_win_rates: 1, of_two_corners: 3, of_differences: 4, of_ratings: 1, of_length_control: 1, of_score_models: 1,
}  # fmt: skip


def rows(studies: int, sizes: list[int]) -> Iterator[tuple[str, int, float, list[float]]]:
    """Name, samples, ties, and the coverage at each size."""
    for simulate, times in SIMULATIONS.items():
        for samples, ties in SAMPLED:
            held: dict[str, list[float]] = {}
            for number in sizes:
                rng = np.random.default_rng([5, number, samples, round(ties * 10)])
                found: dict[str, list[bool]] = {}
                for _ in range(times * studies):
                    for name, (interval, truth) in simulate(rng, number, samples, ties).items():
                        found.setdefault(name, []).append(bool(interval.low <= truth <= interval.high))
                for name, hits in found.items():
                    held.setdefault(name, []).append(sum(hits) / len(hits))
            yield from ((name, samples, ties, shares) for name, shares in held.items())


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--studies', type=int, default=1000, help='of a cell, at least; 1000')
    parser.add_argument('--sizes', type=int, nargs='+', default=[50, 200, 1000], help='prompts; 50 200 1000')
    args = parser.parse_args()
    start, missed = time.perf_counter(), 0
    print(
        f'| interval | samples | ties | {" | ".join(f"n {n}" for n in args.sizes)} |\n|{"---|" * (3 + len(args.sizes))}'
    )
    for name, samples, ties, shares in rows(args.studies, args.sizes):
        outside = [bool(abs(share - LEVEL) > WITHIN) for share in shares]
        missed += 0 if name.startswith('(') else sum(outside)
        told = [f'{share:.3f}{"*" * out}' for share, out in zip(shares, outside, strict=True)]
        cells = ' | '.join(told + ['-'] * (len(args.sizes) - len(told)))
        print(f'| {name} | {samples} | {ties:g} | {cells} |', flush=True)
    print(f'\n* outside {LEVEL:.0%} within {WITHIN:.0%}; cells of printed intervals that are: {missed}')
    print(f'{args.studies} studies a cell, or more where they cost little; {time.perf_counter() - start:.0f} s')
    return 1 if missed else 0


if __name__ == '__main__':
    raise SystemExit(main())
