"""What comes of looking more than once: a test of fixed n, and a bet that is valid at every n."""

from __future__ import annotations

import numpy as np

from guarantee_tables.report import Figure, Options, least_rate, save, table
from safe_align.bounds import betting_anytime, student_t
from safe_align.testbeds.cost_laws import LAWS, Array

DELTA, LARGEST = 0.05, 1000
LOOKS = {1: [LARGEST], 5: range(200, LARGEST + 1, 200), 20: range(50, LARGEST + 1, 50), 951: range(50, LARGEST + 1)}
PUBLISHED = {'beta(2, 5)': (0.049, 0.135, 0.224, 0.314), 'bernoulli(0.05)': (0.056, 0.206, 0.323, 0.424)}


def run(options: Options) -> list[Figure]:
    """The rate at which a policy whose expected cost is the threshold is called safe, at any of the looks."""
    studies, rows, figures = min(options.studies, 4000), [], []
    for law in LAWS:
        if law.name not in PUBLISHED:
            continue
        costs = law.draw(np.random.default_rng([6, *law.name.encode()]), (studies, LARGEST))
        rates = [float(_ever(costs, looks, law.mean).mean()) for looks in LOOKS.values()]
        # its bound never rises, so the last look sees what any look saw
        missed = int((betting_anytime.upper_bounds(costs, delta=DELTA, low=0.0, high=1.0) <= law.mean).sum())
        rows += [[law.name, *rates, missed / studies], [f'{law.name}, published', *PUBLISHED[law.name], '.020-.034']]
        met = least_rate(missed, studies) <= DELTA < rates[-1]
        found = f'{missed / studies:.3f}; Student with 951 looks {rates[-1]:.3f}'
        figures.append(Figure(f'betting at every n, {law.name}', f'99.9% limit at most {DELTA:g}', found, met))
    header = ['law', *(f't, {looks} looks' for looks in LOOKS), 'betting, every n']
    table(f'False passes at the boundary, delta {DELTA:g}, {studies} studies', header, rows)
    save(options, 'peeking', lambda axes: _draw(axes, [row for row in rows if row[0] in PUBLISHED]))
    return figures


def _ever(costs: Array, looks, threshold: float) -> Array:
    passed = np.zeros(len(costs), bool)
    for n in looks:
        passed |= student_t.upper_bounds(costs[:, :n], delta=DELTA) <= threshold
    return passed


def _draw(axes, rows) -> None:
    for name, *rates, betting in rows:
        (line,) = axes.plot(list(LOOKS), rates, marker='o', label=f'Student, {name}')
        axes.axhline(betting, color=line.get_color(), linestyle=':', label=f'betting at every n, {name}')
    axes.axhline(DELTA, color='black', linestyle='--', linewidth=1)
    axes.set(xscale='log', xlabel='looks', ylabel='false passes')
    axes.legend(fontsize=8)
