"""Reward against KL, a point a policy with both 95% intervals: what is bought with a distance from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safe_align.evaluate.figures import new_figure, save
from safe_align.evaluate.movement import Movement
from safe_align.evaluate.statistics import Estimate


def draw(found: Sequence[Movement], directory: Path) -> None:
    """Write the plot into `directory`, once for screens and once for print."""
    figure, (axes,) = new_figure()
    for one in found:
        kl, reward = one.estimates['kl'], one.estimates['reward']
        axes.errorbar(kl.value, reward.value, _reach(reward), _reach(kl), fmt='o', capsize=3, markersize=4)
        axes.annotate(
            one.label, (kl.value, reward.value), xytext=(5, 5), textcoords='offset points', fontsize='small',
            parse_math=False,  # a name may have a $
        )  # fmt: skip
    axes.set_xlabel('KL(policy || reference), nats a response')
    axes.set_ylabel('reward')
    save(figure, directory, 'frontier')


def _reach(estimate: Estimate) -> list[list[float]]:
    """How far the interval reaches below and above the value."""
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]
