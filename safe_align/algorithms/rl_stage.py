"""A whole stage of reinforcement learning, from its options to its directory; what learns is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from safe_align.algorithms.gate import gate_prompts, make_gate
from safe_align.algorithms.multiplier import PID, LogGradient, Multiplier, Newton, Projected, Rule
from safe_align.algorithms.rl_fields import RLFields
from safe_align.algorithms.rollouts import Rollouts, prompt_rows, rounds_of, sampling_of
from safe_align.algorithms.supervised import make_batches, report_data
from safe_align.datasets.mixture import Mixture, build
from safe_align.datasets.packing import Batches, collate
from safe_align.engine import Engine, OptimizerOptions, Placement
from safe_align.handoff import models_of, start_run
from safe_align.laws import Law
from safe_align.loop import Algorithm, Schedule, train
from safe_align.models.adapting import Shared, check_start, make_trainable
from safe_align.models.loading import check_kind, check_length, load_policy, load_tokenizer
from safe_align.models.quantized import check_4bit
from safe_align.models.record import base_of
from safe_align.models.saving import Ending
from safe_align.models.scorer import ModelScorer, Scorer, check_scorer, load_scorer
from safe_align.placing import make_engine
from safe_align.templates import Template


class Workshop:
    """Makes the parts of a stage from its options."""

    def __init__(self, config: RLFields, placement: Placement) -> None:
        self.config, self.placement = config, placement
        actor, trust = config.actor_model_name_or_path, config.trust_remote_code
        check_kind(actor, 'policy', '--actor_model_name_or_path', trust)
        check_length(actor, config.max_length, trust)
        self.template = Template(load_tokenizer(actor, '--actor_model_name_or_path', trust), config.template)
        self.lora = config.lora()
        if self.lora:
            check_start(actor, '--actor_model_name_or_path', self.lora, trust)
        if config.load_in_4bit:
            check_4bit(placement)
        self.total_steps = 0
        self.shared = Shared()
        self.scorers: dict[tuple[str, int], Scorer] = {}

    def models(self, kind: str) -> list[str]:
        """The reward model, or the cost models."""
        given = getattr(self.config, f'{kind}_model_name_or_path', None) or []
        return [given] if isinstance(given, str) else given

    def prompts(self, specs: list[str], flag: str) -> Mixture:
        """Prompts that leave room for a response."""
        return prompt_rows(self.config, self.template, specs, flag)

    def ptx(self) -> Batches | None:
        """The steps of the PTX term, if there is one."""
        config = self.config
        if not (config.ptx_datasets and config.ptx_coeff):
            return None
        data = build(
            config.ptx_datasets, 'supervised', self.template, config.max_length, seed=config.seed,
            strict=config.strict_data, flag='--ptx_datasets',
        )  # fmt: skip
        return make_batches(config, data)

    def rollouts(self, policy: Engine, prompts: Mixture, num_samples: int) -> Rollouts:
        """Draws responses to these prompts."""
        return Rollouts(policy, self.template, prompts, sampling_of(self.config, prompts, [Law()] * num_samples))

    def policy(self, trained: bool) -> Engine:
        """The policy, or the reference."""
        config = self.config
        model = load_policy(
            config.actor_model_name_or_path, '--actor_model_name_or_path', config.trust_remote_code, config.load_in_4bit
        )
        if not trained:
            return self.engine(model)
        make_trainable(model, self.lora, config.actor_gradient_checkpointing)
        return self.engine(model, self.optimizer('actor'))

    def engine(self, model: nn.Module, options: OptimizerOptions | None = None) -> Engine:
        """What runs a model, whose frozen parameters are those of the models before it where they are equal."""
        return self.shared.hold(make_engine(model, self.placement, options))

    def scorer(self, kind: str, number: int = 0) -> Scorer:
        """What scores rewards, or a cost; opened once, whoever asks."""
        if (kind, number) not in self.scorers:
            model = self.models(kind)[number]
            scorer = load_scorer(
                model, kind, f'--{kind}_model_name_or_path', self.placement, self.template,
                budget=self.config.micro_batch_tokens, normalize=getattr(self.config, f'normalize_{kind}'),
                merge=False, in_4bit=self.config.load_in_4bit and base_of(model) is not None,
                trust_remote_code=self.config.trust_remote_code,
            )  # fmt: skip
            if isinstance(scorer, ModelScorer):
                self.shared.hold(scorer.engine)
            self.scorers[kind, number] = scorer
        return self.scorers[kind, number]

    def cost_names(self) -> list[str]:
        """What the costs are called: 'cost', or 'cost_1' and so on where there are several."""
        count = len(self.models('cost'))
        return ['cost'] if count == 1 else [f'cost_{n + 1}' for n in range(count)]

    def multiplier(self, number: int) -> Multiplier:
        """Of the constraint on a cost."""
        config: Any = self.config
        rules: dict[str, Callable[[], Rule]] = {
            'log': lambda: LogGradient(config.lambda_lr), 'projected': lambda: Projected(config.lambda_lr),
            'pid': lambda: PID(*config.lambda_pid), 'newton': lambda: Newton(config.kl_coeff),
        }  # fmt: skip
        return Multiplier(
            config.threshold[number if len(config.threshold) > 1 else 0], config.lambda_init, config.lambda_max,
            config.lambda_update_delay_steps, getattr(config, 'episode_cost_window_size', 1),
            rules[config.lambda_update](),
        )  # fmt: skip

    def optimizer(self, role: str) -> OptimizerOptions:
        """The policy's ('actor') or the critics' ('critic')."""
        lr, decay, kind, warmup = (
            getattr(self.config, f'{role}_{name}')
            for name in ('lr', 'weight_decay', 'lr_scheduler_type', 'lr_warmup_ratio')
        )
        return OptimizerOptions(lr, decay, kind, warmup, self.config.max_grad_norm, self.total_steps)


@dataclass(frozen=True)
class Parts:
    """What any algorithm of reinforcement learning is made of."""

    workshop: Workshop
    policy: Engine
    reference: Engine
    rollouts: Rollouts
    held_out: Rollouts | None  # draws responses to held-out prompts
    ptx: Batches | None

    @property
    def batch_size(self) -> int:
        """Responses of a step on one process."""
        config = self.workshop.config
        return config.per_device_train_batch_size * config.gradient_accumulation_steps


def run_rl(
    config: RLFields, stage: str, algorithm_of: Callable[[Parts], Algorithm],
    check: Callable[[Workshop], None] = lambda _: None, samples: int | None = None, least: int = 1,
) -> int:  # fmt: skip
    """Train a policy, and write it.

    Args:
        config: its options.
        stage: its name.
        algorithm_of: makes what learns.
        check: refuses models that will not do, before anything is written.
        samples: responses a prompt; `--num_return_sequences`, if None.
        least: prompts of a round.
    """
    workshop = Workshop(config, config.place())
    for kind in ('reward', 'cost'):
        for model in workshop.models(kind):
            check_scorer(
                model, kind, f'--{kind}_model_name_or_path', config.max_length, config.trust_remote_code,
                normalize=getattr(config, f'normalize_{kind}'),
            )  # fmt: skip
    check(workshop)
    prompts = workshop.prompts(config.train_datasets, '--train_datasets')
    batches = rounds_of(config, prompts, least)
    held_out = workshop.prompts(config.eval_datasets, '--eval_datasets') if config.eval_datasets else None
    ptx = workshop.ptx()
    trained_on = [prompts.hashes, *([ptx.data.hashes] if ptx else [])]
    looked_at = gate_prompts(workshop, trained_on)
    run = start_run(config, stage, models_of(config), prompts, ptx.data if ptx else None, held_out, looked_at)
    if run is None:
        return 0
    report_data(run, prompts, workshop.template)
    for name, data in (('ptx_datasets', ptx and ptx.data), ('held_out', held_out), ('certify', looked_at)):
        run.record[name] = data.report if data else []
    num_samples = samples or config.num_return_sequences
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    responses = min(config.per_device_prompt_batch_size, len(prompts)) * num_samples
    steps_per_round = -(-responses // size) * config.update_iters
    workshop.total_steps = config.epochs * batches.steps_per_epoch * steps_per_round
    policy = workshop.policy(trained=True)
    drawn = workshop.rollouts(policy, prompts, num_samples)
    checked = workshop.rollouts(policy, held_out, 1) if held_out else None
    algorithm = algorithm_of(Parts(workshop, policy, workshop.policy(trained=False), drawn, checked, ptx))
    algorithm.steps_per_round = steps_per_round
    schedule = Schedule(config.epochs, config.save_interval, config.eval_interval)
    evaluated = make_batches(config, held_out, held_out=True) if held_out else None
    train(algorithm, batches, run, schedule, evaluated, make_gate(workshop, policy, looked_at))
    seen: Any = np.concatenate([*trained_on, *([looked_at.hashes] if looked_at else [])])  # a look may have chosen it
    ending = Ending(run, config, 'actor_model_name_or_path', collate(prompts, range(min(len(prompts), 2))))
    run.finish('policy', partial(ending.write, policy, workshop.template.tokenizer), seen)
    return 0
