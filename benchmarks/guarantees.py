"""What the guarantees are worth where the truth is known: coverage, widths, peeking, certified bandits, cost models.

python benchmarks/guarantees.py [--only coverage widths peeking bandit rare-harm cost-model] [--figures DIR]

Each table is printed, and after all of them each figure beside what is asked of it; exit 1 if one is not met.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

from guarantee_tables.report import Figure, Options

TABLES = ('coverage', 'widths', 'peeking', 'bandit', 'rare-harm', 'cost-model')


def main() -> int:
    """Run the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=TABLES, default=TABLES, help='tables to run; all of them')
    parser.add_argument('--studies', type=int, default=20_000, help='of each cell of coverage; 20000')
    parser.add_argument('--seeds', type=int, default=200, help='studies of each cell of the bandit; 200')
    parser.add_argument('--sizes', type=int, nargs='+', default=[100, 300, 1000, 3000], help='prompts of the bandit')
    parser.add_argument('--figures', type=Path, help='folder to draw figures into')
    args = parser.parse_args()
    options = Options(args.studies, args.seeds, tuple(args.sizes), args.figures)
    figures: list[Figure] = []
    for name in args.only:
        start = time.perf_counter()
        figures += importlib.import_module(f'guarantee_tables.{name.replace("-", "_")}').run(options)
        print(f'\n{name}: {time.perf_counter() - start:.0f} s', flush=True)
    print('\n## Figures\n\n| what | asked | found | met |\n|---|---|---|---|')
    for figure in figures:
        print(f'| {figure.name} | {figure.asked} | {figure.found} | {"yes" if figure.met else "NO"} |')
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == '__main__':
    raise SystemExit(main())
