"""The costs of a certificate as a picture: a histogram with threshold, mean and bound, as SVG written by hand."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import numpy as np

WIDTH, HEIGHT, MARGIN, BINS = 640, 240, 48, 40
BAR, LINES = '#9db7d5', {'mean': '#555555', 'bound': '#1b6e3c', 'threshold': '#b3261e'}


def draw(content: dict[str, Any]) -> str:
    """One panel a constraint: how many prompts have which cost."""
    panels = content['constraints']
    height = HEIGHT * len(panels)
    body = ''.join(_panel(one, HEIGHT * number) for number, one in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="{WIDTH}" height="{height}" fill="white"/>{body}</svg>\n'
    )


def _panel(one: dict[str, Any], top: int) -> str:
    costs, claim = np.array(one['costs']), one['claim']
    marks = {'mean': one['mean'], 'bound': one['value'], 'threshold': claim['threshold']}
    low, high = min(costs.min(), *marks.values()), max(costs.max(), *marks.values())
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    counts, edges = np.histogram(costs, BINS, (low, high))
    base, room = top + HEIGHT - MARGIN, HEIGHT - 2 * MARGIN

    def x(cost: float) -> float:
        return MARGIN + (cost - low) / (high - low) * (WIDTH - 2 * MARGIN)

    parts = []
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        tall = room * count / counts.max()
        parts.append(
            f'<rect x="{x(left):.1f}" y="{base - tall:.1f}" width="{x(right) - x(left) - 1:.1f}" '
            f'height="{tall:.1f}" fill="{BAR}"/>'
        )
    for row, (name, cost) in enumerate(marks.items()):
        anchor = 'end' if x(cost) > WIDTH / 2 else 'start'
        shift = -4 if anchor == 'end' else 4
        y = top + 14 + 12 * row
        parts.append(
            f'<line x1="{x(cost):.1f}" x2="{x(cost):.1f}" y1="{y - 10}" y2="{base}" stroke="{LINES[name]}" '
            f'stroke-width="1.5"/><text x="{x(cost) + shift:.1f}" y="{y}" fill="{LINES[name]}" '
            f'text-anchor="{anchor}">{name} {cost:.4g}</text>'
        )
    label = 'share of responses to a prompt that are unsafe' if claim['kind'] == 'unsafe_rate' else 'cost of a prompt'
    parts.append(
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{base}" y2="{base}" stroke="black"/>'
        f'<text x="{MARGIN}" y="{base + 16}">{low:.4g}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{base + 16}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{WIDTH / 2}" y="{base + 32}" text-anchor="middle">{escape(label)}; '
        f'highest bar {counts.max()} of {len(costs)} prompts</text>'
    )
    return ''.join(parts)
