"""Figures, once for screens and once for print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side; it needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * panels, 4), layout='constrained')
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, panels, n + 1) for n in range(panels)]


def save(figure: Figure, directory: Path, name: str) -> None:
    """Write `name`.png and `name`.pdf, the same bytes for the same figure."""
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    for suffix in ('png', 'pdf'):
        metadata = {'CreationDate': None} if suffix == 'pdf' else {}
        figure.savefig(directory / f'{name}.{suffix}', dpi=150, metadata=metadata)
