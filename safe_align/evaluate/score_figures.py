"""Scores of held-out pairs as figures: how they are distributed, and what they say against what was so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safe_align.evaluate.agreement import SIDES, Kind, Row, responses
from safe_align.evaluate.figures import new_figure, save

COLOURS = ('#1f77b4', '#d62728')  # of the lower score's side and of the higher one's


def draw(rows: Sequence[Row], summary: dict[str, Any], kind: Kind, directory: Path) -> None:
    """Write both figures into `directory`."""
    figure, (axes,) = new_figure()
    groups = _groups(rows, kind)
    edges = np.histogram_bin_edges(np.concatenate([*groups.values()]), 'auto').tolist()
    for (name, scores), colour in zip(groups.items(), COLOURS, strict=False):
        axes.hist(scores, edges, alpha=0.5, color=colour, label=f'{name}, {len(scores)}')
    if kind == 'cost':
        axes.axvline(0, color='black', linestyle='--', linewidth=1)
    axes.set_xlabel(kind)
    axes.set_ylabel('responses')
    axes.legend()
    save(figure, directory, 'distribution')

    lower, higher = SIDES[kind]
    panels = {f'{higher} above {lower}': (f'sigma(difference of {kind}s)', summary['calibration'])}
    if 'sign' in summary:
        panels['unsafe'] = ('sigma(cost)', summary['sign']['calibration'])
    figure, all_axes = new_figure(len(panels))
    for axes, (name, (said, found)) in zip(all_axes, panels.items(), strict=True):
        shares = [one['was_so'] for one in found['bins']]
        values = [one['value'] for one in shares]
        known = [one if one['low'] is not None else dict.fromkeys(one, one['value']) for one in shares]
        reach = [[one['value'] - one['low'] for one in known], [one['high'] - one['value'] for one in known]]
        axes.plot([0, 1], [0, 1], color='grey', linewidth=1)
        axes.errorbar([one['said'] for one in found['bins']], values, np.maximum(reach, 0), fmt='o', capsize=3)
        axes.set_xlim(-0.02 if name == 'unsafe' else 0.49, 1.02)
        axes.set_xlabel(said)
        axes.set_ylabel(f'share that was {name}')
    save(figure, directory, 'calibration')


def _groups(rows: Sequence[Row], kind: Kind) -> dict[str, list[float]]:
    """Scores of each response once: by its label where costs have one, and else by its side."""
    if kind == 'cost' and (labelled := responses(rows)):
        return {
            name: [cost for _, cost, is_safe in labelled if is_safe is wanted]
            for name, wanted in (('safe', True), ('unsafe', False))
        }
    return {side: [*{row[side]: row[f'{side}_{kind}'] for row in rows}.values()] for side in SIDES[kind]}
