"""The constraints of a certificate: each cost on each kind of prompts, or on their mixture; all, or which hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from safe_align.bounds import Array
from safe_align.config import UserError
from safe_align.evaluate.certification.audit import Labels, constraint
from safe_align.evaluate.certification.certificate import CERTIFIED, NOT_CERTIFIED, Claim, certify
from safe_align.evaluate.certification.costs import Costs
from safe_align.guarantees import step_down

SLACK = 1e-6  # of shares that are written in decimals
MIXTURE = 'within each kind; and the shares of the kinds are those that the certificate names'
Told = dict[str, Any]
Part = tuple[int, str | None, Callable[[Claim], Told]]  # number of the cost, kind of prompts, and what a claim comes to
Kind = tuple[str, Sequence[str], Array]  # its name, the prompt of each response, and its cost


@dataclass(frozen=True)
class Terms:
    """What is asked of several constraints.

    Args:
        constraints: 'all', whether all hold, each tested at the full delta, since a wrong certificate needs one that
            does not hold to pass; or 'which' hold, by Holm's method, so that with probability 1 - delta none of those
            that are said to hold does not. The verdict is then 'certified' as soon as one holds.
        strata_weights: share of each kind of prompts, if the claim is about their mixture; None: about every kind.
    """

    constraints: Literal['all', 'which'] = 'all'
    strata_weights: dict[str, float] | None = None

    def __post_init__(self) -> None:
        """Check the shares.

        Raises:
            UserError: they do not add up to 1.
        """
        total = 1.0 if self.strata_weights is None else sum(self.strata_weights.values())
        if not abs(total - 1) <= SLACK:
            raise UserError(f'--strata_weights: the shares add up to {total:g}, not to 1')

    def verdict(self, told: Sequence[Told]) -> str:
        """Of the certificate."""
        holds = [one['holds'] for one in told]
        return CERTIFIED if (all if self.constraints == 'all' else any)(holds) else NOT_CERTIFIED


def constraints_of(
    claims: Mapping[int, Claim], found: Costs, terms: Terms, labels: Labels | None = None, weight: float = 1.0
) -> list[Told]:
    """The part of a certificate that is computed from costs, constraint by constraint.

    `level` is the probability at which `value` is the bound: delta, or the part of it that Holm's method came to.

    Args:
        claims: what is to hold, by the number of the cost.
        found: the costs.
        terms: what is asked of all together.
        labels: true costs of some of the prompts, or None.
        weight: how much of the cost model labels use.

    Raises:
        UserError: a cost that is no finite number, or a cost or a label outside the range.
    """
    parts = _parts(found, terms, labels, weight)
    sizes = range(1, 1 + (len(parts) if terms.constraints == 'which' else 1))
    tried = [
        [judge(replace(claims[column], delta=claims[column].delta / size)) for column, _, judge in parts]
        for size in sizes
    ]
    rows = _which(tried) if terms.constraints == 'which' else [(one, one['holds']) for one in tried[0]]
    return [
        {**one, 'holds': holds, 'level': one['claim']['delta'], 'claim': asdict(claims[column]),
         'column': column, 'stratum': kind}
        for (one, holds), (column, kind, _) in zip(rows, parts, strict=True)
    ]  # fmt: skip


def _parts(found: Costs, terms: Terms, labels: Labels | None, weight: float) -> list[Part]:
    def single(claim: Claim, prompts: Sequence[str], costs: Array) -> Told:
        return {**constraint(claim, prompts, costs, labels, weight), 'kinds': None}

    if terms.strata_weights is None:
        return [(n, kind, partial(single, prompts=prompts, costs=costs)) for n, kind, prompts, costs in found.parts()]
    kinds: dict[int, list[Kind]] = {}
    for column, kind, prompts, costs in found.parts():
        kinds.setdefault(column, []).append((str(kind), prompts, costs))
    return [(n, None, partial(_mixture, kinds=some, weights=terms.strata_weights)) for n, some in kinds.items()]


def _which(tried: Sequence[Sequence[Told]]) -> list[tuple[Told, bool]]:
    """Of each constraint the bound that decides, and whether it holds.

    It is the one at the lowest level that passes, where the constraint holds; else that at the highest which fails.
    """
    passes = np.array([[one['holds'] for one in row] for row in tried])
    holds = step_down(passes)
    return [
        (tried[np.flatnonzero(passes[:, n] == is_held)[-1 if is_held else 0]][n], bool(is_held))
        for n, is_held in enumerate(holds)
    ]


def _mixture(claim: Claim, kinds: Sequence[Kind], weights: Mapping[str, float]) -> Told:
    """A bound of sum_k w_k mu_k: that of each of K kinds at delta / K, added up; all hold at once by a union bound."""
    part = replace(claim, delta=claim.delta / len(kinds))
    told = [(kind, weights[kind], certify(part, prompts, costs)) for kind, prompts, costs in kinds]
    value, mean = (sum(share * one[name] for _, share, one in told) for name in ('value', 'mean'))
    first = told[0][2]
    return {
        **first, 'claim': asdict(claim), 'assumes': f'{first["assumes"]}, {MIXTURE}',
        'costs': [cost for _, _, one in told for cost in one['costs']], 'value': value, 'mean': mean,
        **{name: sum(one[name] for _, _, one in told) for name in ('num_unsafe', 'num_clipped')},
        'holds': value <= claim.threshold, 'audit': None,
        'kinds': [
            {'kind': kind, 'weight': share, 'num': len(one['costs']), 'mean': one['mean'], 'value': one['value']}
            for kind, share, one in told
        ],
    }  # fmt: skip


def check_enough(claims: Sequence[Claim], counts: Mapping[str, int], terms: Terms, column: str | None) -> None:
    """Refuse a test that could not pass whatever the costs, before it spends its prompts.

    Args:
        claims: one a cost.
        counts: prompts of each kind.
        terms: what is asked of all together.
        column: --strata, if given.

    Raises:
        UserError: it says how many prompts are needed.
    """
    names = {kind: f' of --strata {kind}' if column else '' for kind in counts}
    if terms.strata_weights is not None:
        for claim in claims:
            _check_mixture(claim, counts, terms.strata_weights, names)
        return
    num = len(claims) * len(counts)
    failures = []
    for claim in claims:
        level = claim.delta / num if terms.constraints == 'which' else claim.delta  # where Holm's method begins
        for kind, count in counts.items():
            try:
                replace(claim, delta=level).check_enough(count, names[kind])
            except UserError as error:
                failures.append(error)
    if failures and (terms.constraints == 'all' or len(failures) == num):
        raise failures[0]


def _check_mixture(
    claim: Claim, counts: Mapping[str, int], weights: Mapping[str, float], names: Mapping[str, str]
) -> None:
    if claim.rule.TARGET != 'mean':
        raise UserError(f'--bound {claim.bound}: the worst costs of kinds do not add up; --strata_weights takes means')
    part = replace(claim, delta=claim.delta / len(counts))
    for kind, count in counts.items():
        part.check_least(count, names[kind])
    if claim.low is None:
        return
    best = sum(weights[kind] * part.best(count) for kind, count in counts.items())
    if best > claim.threshold:
        told = ', '.join(f'{count}{names[kind]}' for kind, count in counts.items())
        raise UserError(
            f'{told}: prompts are too few for --bound {claim.bound}: with the lowest cost on each of them it would be '
            f'{best:.6g}, above --threshold {claim.threshold:g}'
        )
