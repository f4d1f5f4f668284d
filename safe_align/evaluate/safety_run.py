"""The safety test: claim, prompts that are proved new, answers, costs, the ledger, the certificate."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from safe_align import distributed
from safe_align.checkpoint import write_text
from safe_align.config import UserError
from safe_align.datasets.grammar import parse_dataset
from safe_align.evaluate import certificate_figure, certificate_text
from safe_align.evaluate.answers import held_out
from safe_align.evaluate.certificate import (
    CERTIFIED,
    EXIT,
    FORMAT,
    NOT_CERTIFIED,
    Claim,
    canonical,
    certify,
    hash_of_set,
    read,
    seal,
)  # fmt: skip
from safe_align.evaluate.costs import Costs, hashes_of, read_costs
from safe_align.evaluate.ledger import Ledger, Look, place_of
from safe_align.evaluate.lineage import Ancestor, check_new, trace
from safe_align.evaluate.scored_answers import POLICY, check_models, score_answers
from safe_align.handoff import Run, models_of, start_run, versions
from safe_align.models.loading import load_tokenizer
from safe_align.ownership import CARD
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.evaluate.safety_test import SafetyTestConfig

CERTIFICATE, COSTS, FIGURE = 'certificate.json', 'costs.jsonl', 'costs.svg'
DECODING = (
    'max_length', 'max_new_tokens', 'temperature', 'generation_backend', 'samples_per_prompt', 'seed', 'fp16', 'tf32',
)  # fmt: skip


def run_safety_test(config: SafetyTestConfig) -> int:
    """The whole stage; the exit code of its verdict."""
    given = read_costs(Path(config.costs).expanduser()) if config.costs else None
    claims = claims_of(config, given.most_samples if given else config.samples_per_prompt)
    check_models(config)
    placement, prompts, decoding, names = config.place(), None, None, given.names if given else []
    if given is None:
        policy = str(config.model_name_or_path)
        template = Template(load_tokenizer(policy, POLICY, config.trust_remote_code), config.template)
        prompts = held_out(config, config.datasets or [], template)
        names = [f'{int(key):016x}' for key in prompts.hashes]
        decoding = {name: getattr(config, name) for name in DECODING}
        decoding |= {'bf16': placement.bf16, 'template': template.hash}
    for claim in claims:
        claim.check_enough(len(names))
    models = models_of(config)
    lineage = trace(models)
    _check_lineage(lineage, names)
    run = start_run(config, 'safety_test', models)
    if run is None:
        return _say_again(Path(config.output_dir).expanduser())
    if prompts is not None:
        run.record['datasets'] = prompts.report
    look, ledger = _look(run, claims, decoding, names, given), _ledger(config)
    before = _look_before(ledger, look)
    found = given or score_answers(config, run, policy, prompts, template, placement)
    content = _content(run, claims, decoding, found, lineage)
    _write_down(ledger, look, content, before)
    _finish(run, content, found, names)
    return EXIT[content['verdict']]


def claims_of(config: SafetyTestConfig, samples: int) -> list[Claim]:
    """What is claimed of each cost, with so many responses a prompt.

    Raises:
        UserError: something that cannot be claimed.
    """
    is_rate = config.claim == 'unsafe_rate'
    bound = config.bound or ('clopper_pearson' if is_rate and samples == 1 else 'betting')
    low, high = (0.0, 1.0) if is_rate else (config.range or (None, None))
    thresholds, models = config.threshold or [], len(config.cost_model_name_or_path or [''])
    claims = [
        Claim(config.claim, threshold, config.delta, bound, low, high, config.clip_costs, config.assume_normal)
        for threshold in (thresholds * models if len(thresholds) == 1 else thresholds)
    ]
    for claim in claims:
        claim.check(samples)
    return claims


def _check_lineage(lineage: Sequence[Ancestor], names: Sequence[str]) -> None:
    hashes = hashes_of(names)
    if hashes is not None:
        check_new(lineage, hashes)
    elif lineage:
        raise UserError('--costs: the prompts are ids; with a model given, their texts are needed to prove them new')


def _look(
    run: Run, claims: Sequence[Claim], decoding: dict[str, Any] | None, names: Sequence[str], given: Costs | None
) -> Look:
    """What the ledger is to know of this test; an anytime bound holds for one threshold after another."""
    subject = {
        'models': {option: parent['hash'] or parent['path'] for option, parent in run.parents.items()},
        'decoding': decoding,
        'claims': [asdict(replace(claim, threshold=0.0)) for claim in claims],
    }
    thresholds = [claim.threshold for claim in claims]
    models = [parent['path'] for parent in run.parents.values()]
    return Look(
        hashlib.sha256(canonical(subject).encode()).hexdigest(), thresholds, names, claims[0].is_anytime,
        [list(costs) for costs in zip(given.prompts, *zip(*given.costs, strict=True), strict=True)] if given else None,
        {'models': models, 'bound': claims[0].bound, 'delta': claims[0].delta},
    )  # fmt: skip


def _ledger(config: SafetyTestConfig) -> Ledger | None:
    """The ledger of these prompts, on the first process; no other run looks at them as long as it is open."""
    specs = config.datasets or []
    paths = [config.costs] if config.costs else [parse_dataset(spec)[1].get('path') for spec in specs]
    opened: list[Ledger] = []
    distributed.on_main(lambda: opened.append(Ledger(place_of(specs, paths, config.ledger))))
    return opened[0] if opened else None


def _look_before(ledger: Ledger | None, look: Look) -> dict[str, Any] | None:
    """This very look, if it was made before."""
    found: list[dict[str, Any] | None] = []
    distributed.on_main(lambda: found.append(ledger.find(look) if ledger else None))
    return found[0] if found else None


def _write_down(ledger: Ledger | None, look: Look, content: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Have the ledger hold the look before anyone is told its verdict.

    Raises:
        UserError: the ledger cannot be written, or held another verdict of this very look.
    """

    def write() -> None:
        assert ledger is not None
        if before is not None and before['verdict'] != content['verdict']:
            raise UserError(
                f'--ledger {ledger.path}: this very test gave "{before["verdict"]}" on {before["told"]["date"]}, and '
                f'gives "{content["verdict"]}" now; the first stands'
            )
        if before is None:
            ledger.add(replace(look, told={**look.told, 'date': content['date']}), content['verdict'])
        content['ledger'] = {'path': str(ledger.path), 'looks': len(ledger.looks)}

    distributed.on_main(write)


def _content(
    run: Run, claims: Sequence[Claim], decoding: dict[str, Any] | None, found: Costs, lineage: Sequence[Ancestor]
) -> dict[str, Any]:
    """All of the certificate but what the ledger says."""
    columns = np.array(found.costs).T
    constraints = [
        {**certify(claim, found.prompts, costs), 'cost_model': parent}
        for claim, costs, parent in zip(claims, columns, _cost_models(run, len(claims)), strict=True)
    ]
    names = found.names
    return {
        'format': FORMAT,
        'verdict': CERTIFIED if all(one['holds'] for one in constraints) else NOT_CERTIFIED,
        'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'constraints': constraints,
        'policy': run.parents.get('model_name_or_path'),
        'prompts': {
            'num': len(names), 'hash': hash_of_set(names), 'datasets': run.record.get('datasets'),
            'proved_new': bool(lineage) and hashes_of(names) is not None,
        },
        'num_responses': len(found.prompts), 'samples_per_prompt': found.most_samples,
        'decoding': decoding,
        'lineage': [one.entry() for one in lineage],
        'costs_file': {'name': COSTS, 'sha256': hashlib.sha256(found.text().encode()).hexdigest()},
        'versions': {**versions(), 'numpy': np.__version__, 'scipy': scipy.__version__},
    }  # fmt: skip


def _cost_models(run: Run, count: int) -> list[dict[str, Any] | None]:
    """The record of each constraint's cost model; None where costs were given without one."""
    found = [parent for option, parent in run.parents.items() if option.startswith('cost_model')]
    return [*found, *[None] * (count - len(found))]


def _finish(run: Run, content: dict[str, Any], found: Costs, names: Sequence[str]) -> None:
    def write(directory: Path) -> None:
        if distributed.is_main():
            write_text(directory / COSTS, found.text())
            write_text(directory / FIGURE, certificate_figure.draw(content))
            write_text(directory / CARD, certificate_text.page(content))
            write_text(directory / CERTIFICATE, canonical(seal(content)))

    run.record['verdict'] = content['verdict']
    hashes = hashes_of(names)
    run.finish('evaluation', write, [] if hashes is None else hashes)
    if distributed.is_main():
        print(certificate_text.summary(content))


def _say_again(directory: Path) -> int:
    """The exit code of the verdict that a finished run left."""
    content = read((directory / CERTIFICATE).read_bytes())
    if distributed.is_main():
        print(certificate_text.summary(content))
    return EXIT[content['verdict']]
