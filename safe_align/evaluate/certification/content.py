"""What a certificate says besides its arithmetic, and what the ledger is told."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from safe_align.config import UserError
from safe_align.evaluate.certification.audit import Labels
from safe_align.evaluate.certification.certificate import FORMAT, Claim, canonical, hash_of_set
from safe_align.evaluate.certification.constraints import Terms, constraints_of
from safe_align.evaluate.certification.costs import Costs, hashes_of
from safe_align.evaluate.certification.ledger import Ledger, Look
from safe_align.evaluate.certification.lineage import Ancestor
from safe_align.handoff import Run, versions
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.datasets.mixture import Mixture
    from safe_align.engine import Placement

Content = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What is asked of which prompts, and how answers come about, which is None or empty where costs are given."""

    claims: list[Claim]
    terms: Terms
    names: list[str]
    strata: dict[str, str] | None
    labels: Labels | None
    label_weight: float
    placement: Placement | None
    prompts: Mixture | None
    templates: list[Template]
    decoding: dict[str, Any] | None


def content_of(
    run: Run, asked: Question, decoding: dict[str, Any] | None, found: Costs, line: Sequence[Ancestor],
    number: int, file: str,
) -> Content:  # fmt: skip
    """All of a certificate but what the ledger says.

    Args:
        run: the stage at work.
        asked: what is claimed of each cost that a response has.
        decoding: how the responses were drawn; None: the costs were given.
        found: the costs.
        line: the models that the policy and the cost models were made of.
        number: of the policy in the order in which they are tested, from 1.
        file: where the costs will be.
    """
    policies = [parent for option, parent in run.parents.items() if option.startswith('model_name_or_path')]
    models = [parent for option, parent in run.parents.items() if option.startswith('cost_model')]
    policy = policies[number - 1] if policies else None
    names = found.names
    told = constraints_of(dict(enumerate(asked.claims)), found, asked.terms, asked.labels, asked.label_weight)
    constraints = [{**one, 'cost_model': models[one['column']] if models else None} for one in told]
    return {
        'format': FORMAT,
        'verdict': asked.terms.verdict(constraints),
        'terms': asdict(asked.terms),
        'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'constraints': constraints,
        'policy': policy,
        'sequence': None if len(policies) < 2 else {'number': number, 'order': [one['path'] for one in policies]},
        'prompts': {
            'num': len(names), 'hash': hash_of_set(names), 'datasets': run.record.get('datasets'),
            'proved_new': bool(line) and hashes_of(names) is not None,
        },
        'num_responses': len(found.prompts), 'samples_per_prompt': found.most_samples,
        'decoding': decoding,
        'lineage': [one.entry() for one in line],
        'costs_file': {'name': file, 'sha256': hashlib.sha256(found.text().encode()).hexdigest()},
        'versions': {**versions(), 'numpy': np.__version__, 'scipy': scipy.__version__},
    }  # fmt: skip


def look_of(run: Run, asked: Question, given: Costs | None) -> Look:
    """What the ledger is to know of this test; an anytime bound holds for one threshold after another."""
    subject = {
        'models': {option: parent['hash'] or parent['path'] for option, parent in run.parents.items()},
        'decoding': asked.decoding,
        'templates': [template.hash for template in asked.templates],
        'strata': run.arguments['strata'],
        'labels': asked.labels and [asked.labels, asked.label_weight],
        'claims': [[asdict(replace(claim, threshold=0.0)), claim.bound_file] for claim in asked.claims],
        'terms': asdict(asked.terms),
    }
    claim, thresholds = asked.claims[0], [one.threshold for one in asked.claims]
    models = [parent['path'] for parent in run.parents.values()]
    rows = [[prompt, *costs] for prompt, costs in zip(given.prompts, given.costs, strict=True)] if given else None
    return Look(
        subject=hashlib.sha256(canonical(subject).encode()).hexdigest(),
        quantity='costs' if asked.labels is None else 'labels',
        thresholds=thresholds, prompts=asked.names, is_anytime=claim.is_anytime, costs=rows,
        told={'models': models, 'bound': claim.bound, 'delta': claim.delta},
    )  # fmt: skip


def write_down(ledger: Ledger | None, look: Look, before: dict[str, Any] | None, contents: Sequence[Content]) -> None:
    """Have the ledger hold the look before anyone is told its verdict, and the certificates say where.

    Raises:
        UserError: the ledger cannot be written, or held another verdict of this very look.
    """
    assert ledger is not None
    verdict = ', '.join(content['verdict'] for content in contents)
    if before is not None and before['verdict'] != verdict:
        raise UserError(
            f'--ledger {ledger.path}: this very test gave "{before["verdict"]}" on {before["told"]["date"]}, and '
            f'gives "{verdict}" now; the first stands'
        )
    if before is None:
        ledger.add(replace(look, told={**look.told, 'date': contents[0]['date']}), verdict)
    for content in contents:
        content['ledger'] = {'path': str(ledger.path), 'looks': len(ledger.looks)}
