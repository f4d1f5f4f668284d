"""The safety test: what is asked, prompts that are proved new, answers, costs, the ledger, the certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_align import distributed
from safe_align.checkpoint import write_text
from safe_align.config import UserError
from safe_align.datasets.grammar import parse_dataset
from safe_align.evaluate.certification import audit, figure, text
from safe_align.evaluate.certification.certificate import CERTIFIED, EXIT, Claim, canonical, read, seal
from safe_align.evaluate.certification.constraints import Terms, check_enough
from safe_align.evaluate.certification.content import Question, content_of, look_of, write_down
from safe_align.evaluate.certification.costs import Costs, hashes_of, names_of, read_costs
from safe_align.evaluate.certification.ledger import Ledger, place_of
from safe_align.evaluate.certification.lineage import Ancestor, check_new, trace
from safe_align.evaluate.fields import COST_MODEL, POLICY
from safe_align.evaluate.strata import strata_of, weights_of
from safe_align.guarantees import fixed_sequence
from safe_align.handoff import Run, models_of, start_run
from safe_align.ownership import CARD
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.evaluate.safety_test import SafetyTestConfig

CERTIFICATE, COSTS, FIGURE = 'certificate.json', 'costs.jsonl', 'costs.svg'
DECODING = (
    'max_length', 'max_new_tokens', 'temperature', 'generation_backend', 'samples_per_prompt', 'seed', 'fp16', 'tf32',
)  # fmt: skip
Tested = tuple[dict[str, Any], Costs]


def run_safety_test(config: SafetyTestConfig) -> int:
    """The whole stage; the exit code of its verdict."""
    given = read_costs(Path(config.costs).expanduser(), config.strata) if config.costs else None
    asked = _ask(config, given)
    lines = _lines(config, asked.names)
    run = start_run(config, 'safety_test', models_of(config))
    if run is None:
        return _say_again(Path(config.output_dir).expanduser())
    if asked.prompts is not None:
        run.record['datasets'] = asked.prompts.report
    look, ledger = look_of(run, asked, given), _ledger(config)
    before: list[dict[str, Any] | None] = []
    distributed.on_main(lambda: before.append(ledger.find(look) if ledger else None))
    tested: list[Tested] = []
    passed = fixed_sequence(_each_policy(config, run, asked, given, lines, tested))
    selected = tested[max(passed - 1, 0)]
    distributed.on_main(lambda: write_down(ledger, look, before[0], [content for content, _ in tested]))
    _finish(run, selected, tested, asked.names)
    return EXIT[selected[0]['verdict']]


def _ask(config: SafetyTestConfig, given: Costs | None) -> Question:
    """Everything that can be known before a policy answers; checked.

    Raises:
        UserError: something that cannot be claimed, or not with so few prompts.
    """
    claims = claims_of(config, given.most_samples if given else config.samples_per_prompt)
    if config.model_name_or_path or config.cost_model_name_or_path:
        from safe_align.evaluate.certification.scored_answers import check_models

        check_models(config)
    asked = _ask_policies(config, claims) if given is None else _ask_costs(config, claims, given)
    if asked.labels is None:
        kinds = {name: (asked.strata or {}).get(name, '') for name in asked.names}
        check_enough(claims, Counter(kinds.values()), asked.terms, config.strata)
    return asked


def _ask_costs(config: SafetyTestConfig, claims: list[Claim], given: Costs) -> Question:
    distributed.initialise()
    labels = _labels(config, given.names)
    strata = dict(zip(given.prompts, given.strata, strict=True)) if given.strata else None
    return Question(
        claims, _terms(config, strata), given.names, strata, labels, config.label_weight, None, None, [], None
    )


def _ask_policies(config: SafetyTestConfig, claims: list[Claim]) -> Question:
    from safe_align.evaluate.answers import held_out
    from safe_align.models.loading import load_tokenizer

    placement = config.place()
    policies = config.model_name_or_path or []
    templates = [
        Template(load_tokenizer(policy, POLICY, config.trust_remote_code), config.template) for policy in policies
    ]
    prompts = held_out(config, config.datasets or [], templates[0])
    names = names_of(prompts.hashes)
    labels = _labels(config, names)
    strata = strata_of(config.datasets or [], config.strata, names) if config.strata else None
    decoding = {name: getattr(config, name) for name in DECODING} | {'bf16': placement.bf16}
    return Question(
        claims, _terms(config, strata), names, strata, labels, config.label_weight, placement, prompts, templates,
        decoding,
    )  # fmt: skip


def _terms(config: SafetyTestConfig, strata: dict[str, str] | None) -> Terms:
    weights = weights_of(config.strata_weights, (strata or {}).values()) if config.strata_weights else None
    return Terms(config.constraints, weights)


def _labels(config: SafetyTestConfig, names: Sequence[str]) -> audit.Labels | None:
    return audit.read_labels(Path(config.labels).expanduser(), names) if config.labels else None


def claims_of(config: SafetyTestConfig, samples: int) -> list[Claim]:
    """What is claimed of each cost, with so many responses a prompt.

    Raises:
        UserError: something that cannot be claimed.
    """
    is_rate = config.claim == 'unsafe_rate'
    is_binary = is_rate and samples == 1 and not config.labels
    bound = config.bound or ('clopper_pearson' if is_binary else 'betting')
    low, high = (0.0, 1.0) if is_rate else (config.range or (None, None))
    thresholds, models = config.threshold or [], len(config.cost_model_name_or_path or [''])
    claims = [
        Claim(config.claim, threshold, config.delta, bound, low, high, config.clip_costs, config.assume_normal)
        for threshold in (thresholds * models if len(thresholds) == 1 else thresholds)
    ]
    for claim in claims:
        claim.check(samples)
        if config.labels:
            audit.check(claim)
    return claims


def _lines(config: SafetyTestConfig, names: Sequence[str]) -> list[list[Ancestor]]:
    """What each policy, and the cost models with it, were made of: none of it has seen a prompt.

    Raises:
        UserError: some has, or that cannot be known.
    """
    costs = [(COST_MODEL, path) for path in config.cost_model_name_or_path or []]
    policies = [[(POLICY, path)] for path in config.model_name_or_path or []] or [[]]
    lines, hashes = [trace([*policy, *costs]) for policy in policies], hashes_of(names)
    for line in lines:
        if line and hashes is None:
            raise UserError('--costs: the prompts are ids; with a model, their texts are needed to prove them new')
        if hashes is not None:
            check_new(line, hashes)
    return lines


def _ledger(config: SafetyTestConfig) -> Ledger | None:
    """The ledger of these prompts, on the first process; no other run looks at them as long as it is open."""
    specs = config.datasets or []
    paths = [config.costs] if config.costs else [parse_dataset(spec)[1].get('path') for spec in specs]
    opened: list[Ledger] = []
    distributed.on_main(lambda: opened.append(Ledger(place_of(specs, paths, config.ledger))))
    return opened[0] if opened else None


def _each_policy(
    config: SafetyTestConfig, run: Run, asked: Question, given: Costs | None, lines: Sequence[list[Ancestor]],
    tested: list[Tested],
) -> Iterator[bool]:  # fmt: skip
    """Test one policy after another, as long as somebody wants to know: whether each is certified."""
    policies = config.model_name_or_path or ['']
    for number, policy in enumerate(policies, 1):
        found, decoding = given, asked.decoding
        if found is None:
            from safe_align.evaluate.certification.scored_answers import score_answers

            assert asked.prompts is not None
            assert asked.placement is not None
            template = asked.templates[number - 1]
            found = score_answers(config, run, policy, asked.prompts, template, asked.placement)
            if asked.strata is not None:
                found = replace(found, strata=[asked.strata[name] for name in found.prompts])
            decoding = {**(decoding or {}), 'template': template.hash}
        file = COSTS if len(policies) == 1 else f'costs-{number}.jsonl'
        content = content_of(run, asked, decoding, found, lines[number - 1], number, file)
        tested.append((content, found))
        yield content['verdict'] == CERTIFIED


def _finish(run: Run, selected: Tested, tested: Sequence[Tested], names: Sequence[str]) -> None:
    """Write the certificate of the policy that was selected, and of several policies that of each."""

    def write(directory: Path) -> None:
        if not distributed.is_main():
            return
        for number, (content, found) in enumerate(tested, 1):
            write_text(directory / content['costs_file']['name'], found.text())
            if content['sequence'] is not None:
                write_text(directory / f'certificate-{number}.json', canonical(seal(content)))
        write_text(directory / FIGURE, figure.draw(selected[0]))
        write_text(directory / CARD, text.page(selected[0]))
        write_text(directory / CERTIFICATE, canonical(seal(selected[0])))

    run.record['verdict'] = selected[0]['verdict']
    hashes = hashes_of(names)
    run.finish('evaluation', write, [] if hashes is None else hashes)
    if distributed.is_main():
        print(text.summary(selected[0]))


def _say_again(directory: Path) -> int:
    """The exit code of the verdict that a finished run left."""
    content = read((directory / CERTIFICATE).read_bytes())
    if distributed.is_main():
        print(text.summary(content))
    return EXIT[content['verdict']]
