"""Where all answers are listed: reward and divergence are exact, and so is the most reward there is at a divergence.

A world has 3 prompts with 1,365 answers each, a reference of normal logits, and a reward that counts a motif, which the
reference gives 0.12 on average and the best answers 2. Labels of pairs are drawn from Bradley and Terry's law of the
reward ('dpo'), or are its probabilities ('rev_kl'). All samplers get as many labels, 6,400 a prompt, and as many steps.
Offline are pairs from the reference: new ones at each step, or a fixed set of as many, 4 times over in as many steps.

The grid was fixed after a look at how far runs come: two rates of each optimizer, a factor of three apart, with which
they end between half a nat and five, and beta 0.2, whose optimum is 2.8 nats from the reference, or 0.1, 7.4 nats. Each
sampler is shown at its own best point of the grid, level by level, chosen by the mean over the same seeds. A setting
with a quarter of the labels is shown beside the grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from safe_align.testbeds.online_study import Curve, Setting, frontier, learn, reward_at, stack
from sampler_tables.report import DIFFERENCES, Array, at_equal_divergence, difference

LEVELS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
SHOWN = (0.5, 1.0)  # levels of the table of the grid
BEST, MANY = 'best there is', 'offline x 4'
SAMPLERS = {'offline': ('ref', None), MANY: ('ref', 4), 'online': ('online', None), 'gshf': ('gshf', None),
            'mixp': ('mixp', None)}  # fmt: skip
RATES: dict[Literal['adam', 'sgd'], tuple[float, float]] = {'adam': (0.03, 0.1), 'sgd': (30.0, 100.0)}
NUM_PAIRS, NUM_STEPS, FEW = 32, 200, 8


def settings(loss: Literal['dpo', 'rev_kl']) -> Iterator[Setting]:
    """The grid; soft labels, whose runs are alike but for less noise, are tried with one beta."""
    for beta in (0.2, 0.1) if loss == 'dpo' else (0.1,):
        for optimizer, rates in RATES.items():
            for lr in rates:
                yield Setting(loss, beta, optimizer, lr, NUM_PAIRS, NUM_STEPS)


def run(num_seeds: int) -> None:
    """Print the tables of both kinds of labels."""
    seeds = range(num_seeds)
    best = at_levels(frontier(stack(seeds), num_seeds, [float(beta) for beta in np.geomspace(5.0, 0.02, 80)]))
    for loss in ('dpo', 'rev_kl'):
        grid = {setting: runs_of(setting, seeds) for setting in settings(loss)}
        print(
            f'\n## Listed answers, {loss}: reward at equal KL(policy || reference), nats an answer, {num_seeds} seeds'
        )
        print('\nEach sampler at its best point of the grid, level by level; intervals are paired, 95%.\n')
        tuned = {name: best_of([at_levels(curves[name]) for curves in grid.values()]) for name in SAMPLERS}
        at_equal_divergence(LEVELS, {BEST: best, **tuned}, (*DIFFERENCES, ('online', MANY)))
        few = Setting(loss, 0.1, 'adam', 0.1, FEW, NUM_STEPS)
        of_grid({**grid, few: runs_of(few, seeds)})


def runs_of(setting: Setting, seeds: range) -> dict[str, Curve]:
    """Of each sampler, in the same worlds."""
    return {
        name: learn(stack(seeds), setting, sampler, len(seeds), passes=passes)
        for name, (sampler, passes) in SAMPLERS.items()
    }


def at_levels(curve: Curve) -> Array:
    """The reward of each world's run at each level: (W, M)."""
    return np.stack([reward_at(kl, reward, LEVELS) for kl, reward in zip(curve.kl.T, curve.reward.T, strict=True)])


def best_of(points: list[Array]) -> Array:
    """Of several (W, M), level by level, the one of the highest mean, among those that all worlds reach."""
    means = np.nan_to_num(np.mean(points, axis=1), nan=-np.inf)  # a mean with a NaN in it is one
    return np.take_along_axis(np.stack(points), means.argmax(0)[None, None], axis=0)[0]


def of_grid(grid: dict[Setting, dict[str, Curve]]) -> None:
    """Print a row a setting: differences at some levels, and at the end those of what the loss maximises."""
    pairs = (('online', 'offline'), ('mixp', 'online'))
    heads = [f'{a} - {b}, {where}' for where in (*(f'KL {one:g}' for one in SHOWN), 'the end') for a, b in pairs]
    print('\nPoint by point; at the end: of E r - beta KL after all steps.\n')
    print(f'| setting | KL at the end: {", ".join(SAMPLERS)} | {" | ".join(heads)} |\n|---|---|{"---|" * len(heads)}')
    for setting, curves in grid.items():
        labels = setting.num_pairs * setting.num_steps
        cells = [', '.join(f'{curve.kl[-1].mean():.2f}' for curve in curves.values())]
        rewards = {name: at_levels(curve) for name, curve in curves.items()}
        for level in SHOWN:
            n = LEVELS.index(level)
            cells += [difference(rewards[a][:, n], rewards[b][:, n]) for a, b in pairs]
        ends = {name: curve.reward[-1] - setting.beta * curve.kl[-1] for name, curve in curves.items()}
        cells += [difference(ends[a], ends[b]) for a, b in pairs]
        print(
            f'| beta {setting.beta:g}, {setting.optimizer} {setting.lr:g}, {labels:,} labels | {" | ".join(cells)} |',
            flush=True,
        )
