"""How often each bound lies below the truth, and by how much it lies above, over laws whose truth is known."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from guarantee_tables.report import Figure, Options, least_rate, save, table
from safe_align import plugins
from safe_align.bounds import cvar
from safe_align.testbeds.cost_laws import LAWS, Array, CostLaw

SIZES = (30, 50, 200, 1000)
DELTAS = (0.01, 0.05, 0.1)
BLOCK = 2000  # studies at once
LOOKS = 100
BOUNDS = {name: plugins.load('safe_align.bounds', name) for name in plugins.names('safe_align.bounds')}
NAMES = sorted(BOUNDS, key=lambda name: (BOUNDS[name].FINITE_SAMPLE, name))


class Cell(NamedTuple):
    """Of a bound, a law, a number of prompts and a delta."""

    name: str
    law: str
    n: int
    delta: float
    misses: int
    studies: int
    excess: float


def run(options: Options) -> list[Figure]:
    """The table, and whether every bound that promises it keeps its delta."""
    cells = [cell for law in LAWS for cell in of_law(law, options.studies)]
    for delta in DELTAS:
        rows = [
            [law.name, n, *(_entry(cells, name, law, n, delta) for name in NAMES)] for law in LAWS for n in SIZES
        ]  # fmt: skip
        title = f'Miss rate / mean excess, delta {delta:g}, {options.studies} studies (* = 99.9% limit above delta)'
        table(title, ['law', 'n', *NAMES], rows)
    save(options, 'coverage', lambda axes: _draw(axes, cells))
    return [*_promises(cells), *_without_promise(cells), _looks(min(options.studies, 200))]


def of_law(law: CostLaw, studies: int) -> list[Cell]:
    """All cells of a law; every bound, n and delta sees the same draws, smaller n the first of them."""
    rng = np.random.default_rng([3, *law.name.encode()])
    misses: dict[tuple[str, int, float], int] = defaultdict(int)
    excess: dict[tuple[str, int, float], float] = defaultdict(float)
    for start in range(0, studies, BLOCK):
        costs = law.draw(rng, (min(BLOCK, studies - start), max(SIZES)))
        for name in _fitting(law):
            truth = _truth(name, law)
            for n in SIZES:
                for delta in DELTAS:
                    upper = BOUNDS[name].upper_bounds(costs[:, :n], delta=delta, low=0.0, high=1.0)
                    misses[name, n, delta] += int((upper < truth - 1e-12).sum())
                    excess[name, n, delta] += float((upper - truth).sum())
    return [Cell(name, law.name, n, d, misses[name, n, d], studies, excess[name, n, d] / studies)
            for name, n, d in misses]  # fmt: skip


def _fitting(law: CostLaw) -> list[str]:
    return [name for name in NAMES if name != 'clopper_pearson' or law.binary]


def _truth(name: str, law: CostLaw) -> float:
    return law.cvar(cvar.ALPHA) if BOUNDS[name].TARGET == 'cvar' else law.mean


def _entry(cells: list[Cell], name: str, law: CostLaw, n: int, delta: float) -> str:
    for cell in cells:
        if (cell.name, cell.law, cell.n, cell.delta) == (name, law.name, n, delta):
            mark = '*' * (least_rate(cell.misses, cell.studies) > delta)
            return f'{cell.misses / cell.studies:.4f}{mark} / {cell.excess:.3f}'
    return ''  # Clopper-Pearson, and costs that are not binary


def _promises(cells: list[Cell]) -> list[Figure]:
    figures = []
    for name in NAMES:
        own = [cell for cell in cells if cell.name == name]
        broken = [cell for cell in own if least_rate(cell.misses, cell.studies) > cell.delta]
        worst = max(own, key=lambda cell: cell.misses / cell.studies / cell.delta)
        found = (
            f'above delta in {len(broken)} of {len(own)} cells; '
            f'at most {worst.misses / worst.studies / worst.delta:.2f} delta ({worst.law}, n {worst.n})'
        )
        if BOUNDS[name].FINITE_SAMPLE:
            figures.append(Figure(f'false certificates of {name}', '99.9% limit never above delta', found, not broken))
    return figures


def _without_promise(cells: list[Cell]) -> list[Figure]:
    """That the laws are hard enough for the others to fail."""
    own = [cell for cell in cells if cell.name == 'student_t']
    broken = sum(least_rate(cell.misses, cell.studies) > cell.delta for cell in own)
    found = f'above delta in {broken} of {len(own)} cells'
    return [Figure('false certificates of student_t', 'some: it promises nothing here', found, broken > 0)]


def _looks(studies: int) -> Figure:
    """A bound that never rises with more costs misses at one of many looks just when it does at the last."""
    places = np.linspace(1000 / LOOKS, 1000, LOOKS).astype(int)
    agree, total = 0, 0
    for law in LAWS:
        costs = law.draw(np.random.default_rng([4, *law.name.encode()]), (studies, 1000))
        path = np.array([_anytime(costs[:, :n]) for n in places])
        agree += int(((path < law.mean).any(0) == (path[-1] < law.mean)).sum())
        total += studies
    found = f'{agree} of {total} studies miss at one of {LOOKS} looks just when they miss at n 1000'
    return Figure('looks of betting_anytime', 'counted above for all looks at once', found, agree == total)


def _anytime(costs: Array) -> Array:
    uppers: Array = BOUNDS['betting_anytime'].upper_bounds(costs, delta=0.05, low=0.0, high=1.0)
    return uppers


def _draw(axes, cells: list[Cell]) -> None:
    for name in NAMES:
        own = [cell for cell in cells if cell.name == name and cell.delta == 0.05]
        worst = [max(cell.misses / cell.studies for cell in own if cell.n == n) for n in SIZES]
        axes.plot(SIZES, worst, marker='o', label=name)
    axes.axhline(0.05, color='black', linestyle='--', linewidth=1)
    axes.set(xscale='log', xlabel='prompts', ylabel='miss rate on the worst law', title='delta 0.05')
    axes.legend(fontsize=8)
