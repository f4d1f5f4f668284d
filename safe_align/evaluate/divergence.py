"""How far policies are from a reference: their responses, the KL at each token, rewards, the table, the summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_align import distributed
from safe_align.checkpoint import write_json
from safe_align.config import UserError
from safe_align.engine import Engine, Placement
from safe_align.evaluate import frontier
from safe_align.evaluate.answers import held_out, open_policy, sample, score, share_of_this_process
from safe_align.evaluate.certification.costs import names_of
from safe_align.evaluate.fields import POLICY
from safe_align.evaluate.movement import Movement, Row, movements, render
from safe_align.evaluate.tables import write_csv
from safe_align.handoff import Run, models_of, start_run
from safe_align.models import reference as reference_model
from safe_align.models.loading import check_kind, check_length, load_tokenizer
from safe_align.models.policy import divergences_along
from safe_align.models.scorer import Conversation, check_scorer, load_scorer
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.evaluate.kl import KLConfig

REWARD_MODEL = '--reward_model_name_or_path'
Columns = dict[str, list[Any]]


def run_kl(config: KLConfig) -> int:
    """The whole stage."""
    placement = config.place()
    _check(config)
    policies = config.model_name_or_path
    templates = [Template(load_tokenizer(one, POLICY, config.trust_remote_code), config.template) for one in policies]
    prompts = held_out(config, config.datasets, templates[0])
    run = start_run(config, 'kl', models_of(config))
    if run is None:
        return 0
    turns, keys = share_of_this_process(prompts)
    answers, columns = _measure_all(config, run, templates, turns, keys)
    if config.reward_model_name_or_path:
        _add_rewards(config, run, placement, templates, answers, columns)
    rows = _gather(policies, columns, names_of(keys), config.num_return_sequences)
    found = movements(rows)
    summary = {
        'reference': config.ref_model_name_or_path, 'temperature': config.temperature, 'num_prompts': len(prompts),
        'num_samples': config.num_return_sequences, 'policies': [one.told() for one in found],
    }  # fmt: skip
    run.record |= {'datasets': prompts.report, 'summary': summary}
    if distributed.is_main():
        print(render(summary, found))
    run.finish('evaluation', lambda directory: _write(directory, rows, summary, found), prompts.hashes)
    return 0


def _check(config: KLConfig) -> None:
    """Refuse models that are not what they are asked to be, before anything is computed."""
    trusted = config.trust_remote_code
    for policy in config.model_name_or_path:
        check_kind(policy, 'policy', POLICY, trusted)
        check_length(policy, config.max_length, trusted)
        reference_model.check_reference(config.ref_model_name_or_path, policy, trusted)
    check_length(config.ref_model_name_or_path, config.max_length, trusted)
    if config.reward_model_name_or_path:
        check_scorer(config.reward_model_name_or_path, 'reward', REWARD_MODEL, config.max_length, trusted)


def _measure_all(
    config: KLConfig, run: Run, templates: Sequence[Template], turns: Sequence[list[str]], keys: Sequence[int]
) -> tuple[list[list[Conversation]], list[Columns]]:
    """Answers of each policy to this process's prompts, and their columns; at most one is open with the reference."""
    reference = open_policy(config, (config.ref_model_name_or_path, reference_model.FLAG))
    measured = [
        _measure_one(config, run, policy, template, reference, turns, keys)
        for policy, template in zip(config.model_name_or_path, templates, strict=True)
    ]
    return [answers for answers, _ in measured], [columns for _, columns in measured]


def _measure_one(
    config: KLConfig, run: Run, policy: str, template: Template, reference: Engine, turns: Sequence[list[str]],
    keys: Sequence[int],
) -> tuple[list[Conversation], Columns]:  # fmt: skip
    is_reference = policy == config.ref_model_name_or_path
    engine = reference if is_reference else open_policy(config, (policy, POLICY))
    sizes = [one.module.config.get_text_config().vocab_size for one in (reference, engine)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f'{reference_model.FLAG} {config.ref_model_name_or_path}: has logits for {sizes[0]} tokens, '
            f'{policy} for {sizes[1]}'
        )
    answers = sample(
        config, run, engine, template, turns, keys, what=f'answers of {policy}', num_samples=config.num_return_sequences
    )
    with run.logger.progress(f'KL of {policy}', sum(one.num_tokens for one in answers)) as seen:
        sequences, budget = [one.sequence for one in answers], config.micro_batch_tokens
        kl, estimates = divergences_along(engine, reference, sequences, config.temperature, budget, seen).cpu().numpy()
    if not np.isfinite([kl, estimates]).all():
        raise UserError(f'{POLICY} {policy}: its KL to {config.ref_model_name_or_path} is not finite')
    cut_off = [one.response[-1] not in template.stop_ids for one in answers]
    lengths = [len(one.response) for one in answers]
    columns = {'tokens': lengths, 'cut_off': cut_off, 'kl': kl.tolist(), 'kl_monte_carlo': estimates.tolist()}
    return answers, columns


def _add_rewards(
    config: KLConfig, run: Run, placement: Placement, templates: Sequence[Template],
    answers: Sequence[list[Conversation]], columns: Sequence[Columns],
) -> None:  # fmt: skip
    scorer = load_scorer(
        config.reward_model_name_or_path or '', 'reward', REWARD_MODEL, placement, templates[0],
        budget=config.micro_batch_tokens, trust_remote_code=config.trust_remote_code,
    )  # fmt: skip
    for policy, template, some, column in zip(config.model_name_or_path, templates, answers, columns, strict=True):
        column['reward'] = score(run, scorer.reading(template), some, f'rewards of {policy}')


def _gather(policies: Sequence[str], columns: Sequence[Columns], prompts: Sequence[str], num_samples: int) -> list[Row]:
    """A row a response of all processes, ordered as on one process: by policy, prompt, sample."""
    local = [
        [number, distributed.rank() + distributed.world_size() * (n // num_samples), n % num_samples,
         prompts[n // num_samples], values]
        for number, one in enumerate(columns) for n, values in enumerate(zip(*one.values(), strict=True))
    ]  # fmt: skip
    names = list(columns[0])
    return [
        {'policy': policies[number], 'prompt': prompt, 'sample': draw, **dict(zip(names, values, strict=True))}
        for number, _, draw, prompt, values in sorted(distributed.gather_over_ranks(local), key=lambda row: row[:3])
    ]


def _write(directory: Path, rows: Sequence[Row], summary: dict[str, Any], found: Sequence[Movement]) -> None:
    if not distributed.is_main():
        return
    write_csv(directory / 'kl.csv', rows)
    write_json(directory / 'summary.json', summary)
    if 'reward' in rows[0]:
        frontier.draw(found, directory)
