"""A certificate by a cost model says nothing of the true cost; labels on the held-out prompts do."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from guarantee_tables.report import Figure, Options, least_rate, save, table
from safe_align.algorithms.pessimism import Pessimism
from safe_align.bounds import student_t
from safe_align.guarantees import prediction_powered
from safe_align.testbeds.candidate import best_policy
from safe_align.testbeds.cost_model import cost_model
from safe_align.testbeds.safe_bandit import THRESHOLD
from safe_align.testbeds.studies import RULES, SHARE, World, world

DELTA = 0.1
SIZES = (300, 1000)
METHOD = 'Seldonian 2x'
LABELLED = 0.25  # of the held-out prompts, in the audit with few labels


class Audited(NamedTuple):
    """One study: true and model cost of the candidate, and who returns it."""

    true: float
    model: float
    by_model: bool
    by_labels: bool
    by_few_labels: bool


def run(options: Options) -> list[Figure]:
    """Both cost models at both sizes."""
    the_world, figures, rows, gaps = world('bimodal'), [], [], {}
    for signs in (False, True):
        for n in SIZES:
            studies = [audit(the_world, n, signs, seed) for seed in range(options.seeds)]
            true, model, *verdicts = np.array(studies, float).T
            unsafe, gaps[signs, n] = true > THRESHOLD, true - model
            cells = [f for v in verdicts for f in (v.mean(), (v * unsafe).mean())]
            name = 'pairs and signs' if signs else 'pairs'
            wrong = float((verdicts[0] * (model > THRESHOLD)).mean())
            rows.append([name, str(n), true.mean(), model.mean(), cells[0], wrong, *map(float, cells[1:])])
            for who, failed in (('all labels', verdicts[1]), ('few labels', verdicts[2])):
                count = int((failed * unsafe).sum())
                found = f'{count / options.seeds:.3f}; by the model {cells[1]:.3f}'
                met = least_rate(count, options.seeds) <= DELTA
                asked = f'99.9% limit at most {DELTA:g}'
                figures.append(Figure(f'{name}, n {n}: unsafe and returned, {who}', asked, found, met))
    header = [
        'cost model of', 'n', 'true cost', 'model cost', 'returned by model', 'unsafe by model', 'unsafe in truth',
        'by all labels', 'unsafe', f'by {LABELLED:.0%} of labels and the model', 'unsafe',
    ]  # fmt: skip
    table(f'Cost-model gap, {METHOD}, delta {DELTA:g}, {options.seeds} seeds', header, rows)
    save(options, 'cost-model', lambda axes: _draw(axes, gaps))
    return figures


def audit(the_world: World, num_prompts: int, signs: bool, seed: int) -> Audited:
    """Learn a cost model, fit a candidate to its costs, test it by its costs, by true ones, and by few of these."""
    rng = np.random.default_rng([5, num_prompts, seed])
    prompts = the_world.prompts
    scored = prompts.with_costs(cost_model(prompts, rng, signs=signs))
    here = round(SHARE * num_prompts)
    there = num_prompts - here
    margin = partial(student_t.margin, delta=DELTA, low=0, high=0)
    kappa, _ = Pessimism(margin, there, **RULES[METHOD]).kappa(here)
    theta = best_policy(scored.draw(here, rng), kappa)
    index = rng.integers(len(prompts), size=there)
    chosen = prompts.at(index).respond(theta, rng.random((there, 1)))
    labels, scores = prompts.costs[index, chosen], scored.costs[index, chosen]
    few = round(LABELLED * there)
    powered = prediction_powered(labels[:few], scores[:few], scores[few:], delta=DELTA)
    return Audited(
        prompts.truth(theta).cost, scored.truth(theta).cost,
        student_t.upper_bound(scores, delta=DELTA) <= THRESHOLD,
        student_t.upper_bound(labels, delta=DELTA) <= THRESHOLD, powered.upper <= THRESHOLD,
    )  # fmt: skip


def _draw(axes, gaps) -> None:
    labels = [f'{"pairs and signs" if signs else "pairs"}, n {n}' for signs, n in gaps]
    axes.boxplot(list(gaps.values()))
    axes.set_xticks(range(1, len(labels) + 1), labels, fontsize=8)
    axes.axhline(0, color='black', linestyle='--', linewidth=1)
    axes.set(ylabel='true cost less model cost')
