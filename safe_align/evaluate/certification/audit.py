"""Labels of people for some of the prompts: a bound of the true cost, whatever the cost model's error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from safe_align.bounds import Array
from safe_align.config import UserError
from safe_align.evaluate.certification.certificate import Claim, certify
from safe_align.evaluate.certification.costs import read_costs
from safe_align.guarantees import Audit, prediction_powered, prediction_powered_betting

ASSUMES = (
    'that the labels are the truth, and that the labelled prompts were drawn at random among those of the test; of the '
    'cost model it assumes nothing'
)
Labels = dict[str, list[float]]
LEAST = 2  # prompts with a label, and without


def read_labels(path: Path, names: Sequence[str]) -> Labels:
    """The labels of a file by prompt, each a cost; above 0 is unsafe.

    Raises:
        UserError: it cannot be read, has a prompt that is not tested, or too few with or without a label.
    """
    found = read_costs(path, key='label')
    labels: Labels = {}
    for name, (label, *_) in zip(found.prompts, found.costs, strict=True):
        labels.setdefault(name, []).append(label)
    unknown = labels.keys() - set(names)
    if unknown:
        raise UserError(f'--labels {path}: {len(unknown)} of {len(labels)} prompts are not among those of the test')
    if len(labels) < LEAST or len(names) - len(labels) < LEAST:
        raise UserError(
            f'--labels {path}: {len(labels)} of {len(names)} prompts have a label; at least {LEAST} with one and '
            f'{LEAST} without are needed'
        )
    return labels


def check(claim: Claim) -> None:
    """Refuse bounds that take no labels.

    Raises:
        UserError: it names the flag.
    """
    if claim.bound not in ('betting', 'student_t'):
        raise UserError(f'--bound {claim.bound}: --labels go with betting, or with student_t and --assume_normal')


def constraint(
    claim: Claim, prompts: Sequence[str], costs: ArrayLike, labels: Labels | None, weight: float
) -> dict[str, Any]:
    """What `certify` says; with labels, of their cost in place of the cost model's.

    Args:
        claim: what is to hold.
        prompts: N names, one a response.
        costs: (N,), the cost model's.
        labels: true costs of some of the prompts, or None.
        weight: how much of the cost model is used, for betting; fixed before any label is seen.

    Raises:
        UserError: a cost that is no finite number, or a cost or a label outside the range.
    """
    told = certify(claim, prompts, costs)
    if labels is None:
        return {**told, 'audit': None}
    names = list(dict.fromkeys(prompts))
    rows = [(name, label) for name in names for label in labels.get(name, ())]
    truth, _ = replace(claim, clip_costs=False).values([name for name, _ in rows], [label for _, label in rows])
    scores, has_label = np.array(told['costs']), np.array([name in labels for name in names])
    audit = _bound(claim, truth, scores[has_label], scores[~has_label], weight)
    return {
        **told, 'assumes': f'{told["assumes"]}; {ASSUMES}', 'value': audit.upper, 'mean': audit.estimate,
        'holds': audit.upper <= claim.threshold,
        'audit': {
            'labels': [[name, label] for name, label in rows], 'num': len(truth), 'mean_label': float(truth.mean()),
            'weight_given': weight, 'weight': audit.weight, 'gap': audit.gap,
        },
    }  # fmt: skip


def _bound(claim: Claim, truth: Array, scores: Array, others: Array, weight: float) -> Audit:
    if not claim.rule.FINITE_SAMPLE:
        return prediction_powered(truth, scores, others, delta=claim.delta)
    low, high = claim.limits
    return prediction_powered_betting(truth, scores, others, delta=claim.delta, low=low, high=high, weight=weight)


def labels_of(told: dict[str, Any]) -> tuple[Labels | None, float]:
    """Labels and weight of a constraint of a certificate."""
    if told['audit'] is None:
        return None, 1.0
    labels: Labels = {}
    for name, label in told['audit']['labels']:
        labels.setdefault(name, []).append(label)
    return labels, told['audit']['weight_given']
