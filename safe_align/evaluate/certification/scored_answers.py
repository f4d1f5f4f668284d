"""The costs of a policy's answers to held-out prompts, by one cost model or function, or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_align import distributed
from safe_align.config import UserError
from safe_align.datasets.mixture import Mixture
from safe_align.engine import Placement
from safe_align.evaluate.answers import answer, score, share_of_this_process
from safe_align.evaluate.certification.costs import Costs, names_of
from safe_align.evaluate.fields import COST_MODEL, POLICY
from safe_align.functions import is_function
from safe_align.handoff import Run
from safe_align.models.loading import architecture_of, check_kind, check_length, config_of
from safe_align.models.record import record_of
from safe_align.models.scorer import check_scorer, load_scorer
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.evaluate.safety_test import SafetyTestConfig


def check_models(config: SafetyTestConfig) -> None:
    """Refuse models that are not what they are asked to be, before anything is computed.

    Raises:
        UserError: it names the flag and the model.
    """
    for name in config.model_name_or_path or []:
        check_kind(name, 'policy', POLICY, config.trust_remote_code)
        check_length(name, config.max_length, config.trust_remote_code)
    for name in config.cost_model_name_or_path or []:
        check_scorer(name, 'cost', COST_MODEL, config.max_length, config.trust_remote_code)
        if config.claim == 'unsafe_rate' and not is_function(name):
            _check_zero(name, config.trust_remote_code)


def without_zero(name: str, trust_remote_code: bool) -> str:
    """Why the 0 of a cost model is no border between safe and unsafe; '' where it is one.

    safe-rlhf's own training always has the sign terms, so its `*ForScore` cost models have a zero.
    """
    record = record_of(name)
    config = config_of(name, COST_MODEL, trust_remote_code)
    if record is None:
        from_safe_rlhf = architecture_of(config).endswith('ForScore') and config.get('score_type') == 'cost'
        return '' if from_safe_rlhf else 'nothing says that it was trained with the sign terms'
    return '' if record.get('has_sign_terms') else 'it was trained without the sign terms (no row had is_safe)'


def _check_zero(name: str, trust_remote_code: bool) -> None:
    """Refuse a cost model without a zero."""
    if why := without_zero(name, trust_remote_code):
        raise UserError(
            f'{COST_MODEL} {name}: {why}, so a cost above 0 does not mean unsafe; --claim mean_cost needs no zero'
        )


def score_answers(
    config: SafetyTestConfig, run: Run, policy: str, prompts: Mixture, template: Template, placement: Placement
) -> Costs:
    """Answer each prompt --samples_per_prompt times, and score the answers; the same on every process."""
    turns, keys = share_of_this_process(prompts)
    samples, step = config.samples_per_prompt, distributed.world_size()
    answers = answer(
        config, run, (policy, POLICY), template, turns, keys, what=f'answers of {policy}', num_samples=samples
    )
    columns = [
        score(run, load_scorer(
            name, 'cost', COST_MODEL, placement, template,
            budget=config.micro_batch_tokens, trust_remote_code=config.trust_remote_code,
        ), answers, f'costs by {name}')
        for name in config.cost_model_name_or_path or []
    ]  # fmt: skip
    local = [[distributed.rank() + step * (n // samples), costs] for n, costs in enumerate(zip(*columns, strict=True))]
    rows = sorted(distributed.gather_over_ranks(local), key=lambda row: row[0])  # as on one process: order matters
    names = names_of(prompts.hashes)
    return Costs([names[place] for place, _ in rows], [list(costs) for _, costs in rows])
