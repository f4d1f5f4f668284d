"""What the tables share: their options, their lines, and the figures that are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats


@dataclass(frozen=True)
class Options:
    """How much is drawn, and where figures go."""

    studies: int
    seeds: int
    sizes: tuple[int, ...]
    figures: Path | None


class Figure(NamedTuple):
    """A measured number beside the one asked for."""

    name: str
    asked: str
    found: str
    met: bool


def least_rate(count: int, total: int) -> float:
    """Clopper and Pearson's lower 99.9% limit of a rate: where it is above delta, chance is no excuse."""
    return float(stats.beta.ppf(0.001, count, total - count + 1)) if count else 0.0


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table; numbers to three digits behind the point."""
    print(f'\n## {title}\n\n| {" | ".join(header)} |\n|{"---|" * len(header)}')
    for row in rows:
        print(f'| {" | ".join(_cell(cell) for cell in row)} |', flush=True)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return '-' if math.isnan(value) else f'{value:.3f}'


def save(options: Options, name: str, draw: Any) -> None:
    """Write `name`.png with what `draw(axes)` draws, if figures are asked for."""
    if options.figures is None:
        return
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot as plt

    options.figures.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
    draw(axes)
    figure.savefig(options.figures / f'{name}.png', dpi=150)
    plt.close(figure)
