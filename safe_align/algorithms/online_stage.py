"""The stage of online preference learning, from its options to its directory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from safe_align.algorithms.averaging import Averaged
from safe_align.algorithms.online_preference import OnlineOptions, OnlinePreference
from safe_align.algorithms.preference_fields import load_learner, make_preference_loss
from safe_align.algorithms.preference_loss import PreferenceLoss
from safe_align.algorithms.rollouts import Rollouts, prompt_rows, rounds_of, sampling_of
from safe_align.algorithms.supervised import Supervised, make_batches, optimizer_of, report_data
from safe_align.config import UserError
from safe_align.datasets.packing import collate
from safe_align.engine import Engine, Placement
from safe_align.handoff import models_of, start_run
from safe_align.laws import Law
from safe_align.loop import Schedule, train
from safe_align.models.adapting import Shared, check_start, make_trainable
from safe_align.models.loading import check_kind, check_length, load_policy, load_tokenizer
from safe_align.models.quantized import check_4bit
from safe_align.models.reference import check_reference
from safe_align.models.saving import Ending
from safe_align.models.scorer import ModelScorer, Scorer, load_scorer
from safe_align.online.annotating import Tools, check_annotator, choice_of, compares, feedback_for, open_annotator
from safe_align.online.critique import Critique
from safe_align.online.feedback_rows import Rules
from safe_align.online.sampler import laws_of
from safe_align.ownership import JUDGEMENTS
from safe_align.placing import make_engine
from safe_align.remote.journal import Journal
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.algorithms.online_dpo import OnlineDPOConfig

POLICY = '--model_name_or_path'


def run_online(config: OnlineDPOConfig) -> int:
    """The whole stage."""
    placement = config.place()
    function = make_preference_loss(config)
    laws = laws_of(config.sampler, config.num_return_sequences, config.sampler_options)
    rules = check(config, function, laws, placement)
    template = Template(load_tokenizer(config.model_name_or_path, POLICY, config.trust_remote_code), config.template)
    prompts = prompt_rows(config, template, config.train_datasets, '--train_datasets')
    held_out = prompt_rows(config, template, config.eval_datasets, '--eval_datasets') if config.eval_datasets else None
    batches = rounds_of(config, prompts)
    run = start_run(config, 'online-dpo', models_of(config), prompts, held_out)
    if run is None:
        return 0
    report_data(run, prompts, template)
    run.record['held_out'] = held_out.report if held_out else []
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    rows = min(config.per_device_prompt_batch_size, len(prompts)) * rows_of_prompt(rules, config.num_return_sequences)
    steps_per_round = -(-rows // size) * config.update_iters
    steps = config.epochs * batches.steps_per_epoch * steps_per_round
    shared = Shared()
    policy, reference = open_models(config, function, laws, placement, steps, shared)
    scorer = partial(open_scorer, config, placement, template, shared)
    journal = partial(Journal, run.directory / JUDGEMENTS, run.logger.say)
    annotator = open_annotator(Tools(config, scorer, journal, lambda _: None))  # what it says of each round is too much
    per_response = len(laws) // config.num_return_sequences
    algorithm = OnlinePreference(
        Supervised(policy, function), reference,
        Rollouts(policy, template, prompts, sampling_of(config, prompts, laws), reference),
        Rollouts(policy, template, held_out, sampling_of(config, held_out, [Law()])) if held_out else None,
        Critique(annotator, rules, config.desirable_from, per_response),
        OnlineOptions(size, config.micro_batch_tokens, config.update_iters, config.max_length, config.renew_reference),
    )  # fmt: skip
    algorithm.steps_per_round = steps_per_round
    schedule = Schedule(config.epochs, config.save_interval, config.eval_interval)
    train(algorithm, batches, run, schedule, make_batches(config, held_out, held_out=True) if held_out else None)
    ending = Ending(run, config, 'model_name_or_path', collate(prompts, range(min(len(prompts), 2))))
    run.finish('policy', partial(ending.write, policy, template.tokenizer), prompts.hashes)
    return 0


def rows_of_prompt(rules: Rules, num_samples: int) -> int:
    """The most rows of feedback on the responses to a prompt."""
    if rules.kind == 'pointwise':
        return num_samples
    return num_samples // 2 if rules.how == 'random' else 1


def check(config: OnlineDPOConfig, function: PreferenceLoss, laws: list[Law], placement: Placement) -> Rules:
    """How feedback is made, if models and options go together.

    Raises:
        UserError: it says what does not.
    """
    trust = config.trust_remote_code
    check_kind(config.model_name_or_path, 'policy', POLICY, trust)
    check_length(config.model_name_or_path, config.max_length, trust)
    if options := config.lora():
        check_start(config.model_name_or_path, POLICY, options, trust)
    if config.load_in_4bit:
        check_4bit(placement)
    is_read = function.reference or any(law.models[1] for law in laws)
    if config.ref_model_name_or_path and not is_read:
        raise UserError(
            f'--ref_model_name_or_path: neither --loss {config.loss} nor --sampler {config.sampler} reads a reference'
        )
    if config.ref_model_name_or_path:
        check_reference(config.ref_model_name_or_path, config.model_name_or_path, trust)
    if config.renew_reference and not is_read:
        raise UserError(f'--renew_reference: --loss {config.loss} and --sampler {config.sampler} read none')
    check_annotator(config)
    kind = feedback_for(config.loss, function.needs, config.num_return_sequences)
    check_feedback(config, function)
    return Rules(kind, choice_of(config), compares(config), config.min_gap, config.seed)


def check_feedback(config: OnlineDPOConfig, function: PreferenceLoss) -> None:
    """Refuse a loss that reads what no feedback on responses has, or not this one.

    Raises:
        UserError: it says what.
    """
    told, names, answers = f'--loss {config.loss}', function.needs.names, function.needs.rows == 'answers'
    if compares(config):
        if answers:
            raise UserError(f'{told}: learns from single answers, and --annotator {config.annotator} gives no scores')
        if 'margin' in names or function.weighs_by('margin'):
            raise UserError(f'--annotator {config.annotator}: gives no scores, so that pairs have no margin')
        if config.eval_datasets:
            raise UserError(f'--eval_datasets: --annotator {config.annotator} gives no scores')
    if 'is_chosen_safe' in names and not config.cost_model_name_or_path:
        raise UserError(f'{told}: learns from what is safe; use an annotator with --cost_model_name_or_path')
    if 'kl' in names and config.per_device_prompt_batch_size < 2:
        raise UserError(
            f'--per_device_prompt_batch_size 1: {told} takes the divergence from answers to other prompts of a round'
        )


def open_models(
    config: OnlineDPOConfig, function: PreferenceLoss, laws: list[Law], placement: Placement, steps: int, shared: Shared
) -> tuple[Engine, Engine | None]:
    """The policy, and the reference if one is read."""
    options, trust = config.lora(), config.trust_remote_code
    model = load_learner(config, function.needs)
    make_trainable(model, options, config.gradient_checkpointing)
    policy = shared.hold(make_engine(model, placement, optimizer_of(config, steps)))
    if not (function.reference or any(law.models[1] for law in laws)):
        return policy, None
    path = config.ref_model_name_or_path or config.model_name_or_path
    in_4bit = config.load_in_4bit and path == config.model_name_or_path
    reference = load_policy(path, '--ref_model_name_or_path', trust, in_4bit)
    if not config.renew_reference:
        return policy, shared.hold(make_engine(reference, placement))
    make_trainable(reference, options)
    return policy, shared.hold(Averaged(reference, policy, 0.0))


def open_scorer(config: OnlineDPOConfig, placement: Placement, template: Template, shared: Shared, kind: str) -> Scorer:
    """A score model or function that the annotator asks for."""
    option = f'{kind}_model_name_or_path'
    scorer = load_scorer(
        getattr(config, option), kind, f'--{option}', placement, template,
        budget=config.micro_batch_tokens, merge=False, trust_remote_code=config.trust_remote_code,
    )  # fmt: skip
    if isinstance(scorer, ModelScorer):
        shared.hold(scorer.engine)
    return scorer
