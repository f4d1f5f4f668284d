"""The bandit whose harms are rare and drawn once: candidates learn them by heart, and the test alone protects."""

from __future__ import annotations

from guarantee_tables.bandit import kept, of_world
from guarantee_tables.report import Figure, Options

TESTS = ('student_t', 'betting', 'clopper_pearson')


def run(options: Options) -> list[Figure]:
    """The same table as of the bandit."""
    cells = of_world('rare harm', TESTS, options)
    fewest = min(options.sizes)
    unsafe = min(cell.unsafe for cell in cells if cell.n == fewest)
    hard = Figure(f'candidates are unsafe, n {fewest}', 'nearly all of them', f'{unsafe:.2f} at least', unsafe > 0.9)
    return [*kept(cells, 'rare harm'), hard]
