"""How wide the default bounds are."""

from __future__ import annotations

import numpy as np
from scipy import stats

from guarantee_tables.report import Figure, Options, table
from safe_align.bounds import betting, clopper_pearson, hoeffding
from safe_align.testbeds.cost_laws import LAWS

SIZES = (30, 50, 200, 1000)
DELTAS = (0.01, 0.05, 0.1)


def run(options: Options) -> list[Figure]:
    """Clopper-Pearson against scipy's exact binomial interval, and betting against Hoeffding's where costs vary little.

    Variances are those of the costs that are drawn, to two digits or more.
    """
    gap = max(_gap(n, delta) for n in SIZES for delta in DELTAS)
    rows, worst = [], 0.0
    for law in LAWS:
        costs = law.draw(np.random.default_rng([5, *law.name.encode()]), (min(options.studies, 4000), 200))
        variance = float(costs.var())
        ratios = []
        for delta in DELTAS:
            excess = [(b.upper_bounds(costs, delta=delta, low=0.0, high=1.0) - law.mean).mean()
                      for b in (betting, hoeffding)]  # fmt: skip
            ratios.append(float(excess[0] / excess[1]))
        rows.append([law.name, f'{variance:.4f}', *ratios])
        worst = max(worst, *ratios) if variance <= 0.05 else worst
    table("Betting's mean excess over Hoeffding's, n 200", ['law', 'variance', *(f'delta {d:g}' for d in DELTAS)], rows)
    return [
        Figure('default rate bound less exact binomial', '1e-9 at most', f'{gap:.1e}', gap <= 1e-9),
        Figure("betting over Hoeffding's, variance <= .05, n 200", '0.6 at most', f'{worst:.3f}', worst <= 0.6),
    ]


def _gap(n: int, delta: float) -> float:
    """The largest difference over all numbers of harms."""
    found = []
    for harms in range(n + 1):
        costs = np.repeat([1.0, 0.0], [harms, n - harms])
        exact = stats.binomtest(harms, n, alternative='less').proportion_ci(1 - delta, 'exact').high
        found.append(abs(clopper_pearson.upper_bound(costs, delta=delta, low=0.0, high=1.0) - exact))
    return float(max(found))
