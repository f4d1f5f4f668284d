"""Scores to feedback: which responses to a prompt make a pair, and which single ones are desirable."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from safe_align.config import UserError

ALONE = 'one response'
Choice = Literal['max_min', 'max_random', 'random', 'closest']


class Pair(NamedTuple):
    """The numbers of two responses to a prompt, the better first."""

    chosen: int
    rejected: int


def candidates(scores: Sequence[float], how: Choice, draw: np.random.Generator, min_gap: float = 0.0) -> list[Pair]:
    """The pairs of responses that are compared, in any order of theirs.

    Args:
        scores: of the responses to a prompt, two or more.
        how: 'max_min', the best and the worst; 'max_random', the best and any other; 'random', all of them two by two
            in a random order; 'closest', the two that differ least, yet by more than `min_gap`.
        draw: random numbers of this prompt.
        min_gap: in the unit of the scores.
    """
    order = [int(n) for n in np.argsort(-np.asarray(scores), kind='stable')]  # of equals, the first is the best
    if how == 'max_min':
        worst = next(n for n in range(len(scores)) if scores[n] == min(scores) and n != order[0])
        return [Pair(order[0], worst)]
    if how == 'max_random':
        return [Pair(order[0], order[int(draw.integers(1, len(order)))])]
    if how == 'random':
        return couples(len(scores), draw)
    gaps = [(scores[a] - scores[b], a, b) for place, a in enumerate(order) for b in order[place + 1 :]]
    wide = [gap for gap in gaps if gap[0] > min_gap]
    return [Pair(*min(wide or gaps)[1:])]


def couples(count: int, draw: np.random.Generator) -> list[Pair]:
    """Numbers below `count` two by two in a random order; of an odd count one is left out."""
    order = draw.permutation(count)
    return [Pair(int(a), int(b)) for a, b in zip(order[::2], order[1::2], strict=False)]


def scored_pairs(
    texts: Sequence[str], scores: Sequence[float], how: Choice, draw: np.random.Generator, min_gap: float = 0.0
) -> tuple[list[Pair], Counter[str]]:
    """The pairs of responses to a prompt, and how many were dropped for which reason."""
    if len(texts) < 2:
        return [], Counter({ALONE: 1})
    found = candidates(scores, how, draw, min_gap)
    return compared_pairs(texts, found, [scores[a] - scores[b] for a, b in found], min_gap)


def compared_pairs(
    texts: Sequence[str], found: Sequence[Pair], gaps: Sequence[float | None], min_gap: float = 0.0
) -> tuple[list[Pair], Counter[str]]:
    """The better response of each couple first, by how much better the first one is; None is an abstention."""
    kept, dropped = [], Counter[str]()
    for couple, gap in zip(found, gaps, strict=True):
        if texts[couple.chosen] == texts[couple.rejected]:
            dropped['identical'] += 1
        elif gap is None:
            dropped['abstention'] += 1
        elif abs(gap) <= min_gap:
            dropped['tie'] += 1
        else:
            kept.append(couple if gap > 0 else Pair(couple.rejected, couple.chosen))
    return kept, dropped


def draw_for(seed: int, name: str, texts: Sequence[str]) -> np.random.Generator:
    """Random numbers of a prompt, by its name, and of the responses to it."""
    told = json.dumps([seed, name, *texts]).encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), 'big'))


def border_of(threshold: str, scores: Sequence[float]) -> float:
    """The score from which on a response is desirable: a number, or the 'mean' or 'median' of all scores.

    Raises:
        UserError: it is none of these.
    """
    if threshold in ('mean', 'median'):
        return float(getattr(np, threshold)(np.asarray(scores, float)))
    with contextlib.suppress(ValueError):
        if math.isfinite(border := float(threshold)):
            return border
    raise UserError(f'--desirable_from {threshold}: a finite number, mean or median was expected')
