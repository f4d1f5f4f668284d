"""Options that stages of reinforcement learning share, under safe-rlhf's names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from safe_align.config import UserError, arg
from safe_align.fields import DataFields, LoopFields, LoraFields, PlacementFields, RunFields, Scheduler, datasets_arg

PASS_CHANCE = 0.9  # of --kappa auto


@dataclass(kw_only=True, frozen=True)
class SamplingFields:
    """How responses are drawn."""

    max_new_tokens: int | None = arg(None, 'tokens of a response (default: what --max_length leaves)', low=1)
    temperature: float = arg(1.0, 'logits are divided by it, in sampling and in scoring', low=1e-6)
    top_p: float = arg(
        1.0, "for safe-rlhf's command lines; only 1, since other laws are not the one that is scored", low=0, high=1
    )
    repetition_penalty: float = arg(1.0, 'likewise')
    num_return_sequences: int = arg(1, 'responses a prompt', low=1)
    generation_batch_size: int = arg(128, 'rows decoded together; memory depends on it, responses do not', low=1)
    generation_backend: Literal['builtin', 'hf'] = arg('builtin', "ours, or transformers' generate")

    def check_sampling(self, max_length: int) -> None:
        """Check what these fields say together.

        Raises:
            UserError: responses could not be drawn so, or not be scored.
        """
        if self.top_p != 1 or self.repetition_penalty != 1:
            raise UserError(
                '--top_p and --repetition_penalty: only 1 here; responses drawn otherwise would be scored wrongly'
            )
        if self.max_new_tokens is not None and self.max_new_tokens >= max_length:
            raise UserError(
                f'--max_new_tokens {self.max_new_tokens}: leaves no room for a prompt in --max_length {max_length}'
            )


@dataclass(kw_only=True, frozen=True)
class RoundFields:
    """What a round is: responses are drawn, and learnt from."""

    update_iters: int = arg(1, 'updates on the same responses', low=1)
    per_device_prompt_batch_size: int = arg(16, 'prompts of a round on one process', low=1)
    eval_interval: int | None = arg(None, 'steps between evaluations with --eval_datasets (default: an epoch)', low=1)


@dataclass(kw_only=True, frozen=True)
class RLFields(RoundFields, RunFields, PlacementFields, DataFields, SamplingFields, LoopFields, LoraFields):
    """A policy trained on its own responses, scored by a reward model."""

    actor_model_name_or_path: str = arg(help='policy to start from, which is also the reference')
    reward_model_name_or_path: str = arg(help='reward model, or function:NAME')
    ptx_datasets: list[str] | None = datasets_arg(None, 'supervised data for the PTX term')
    kl_coeff: float = arg(0.02, 'of the divergence from the reference', low=0)
    clip_range_ratio: float = arg(0.2, 'how far the ratio of an update may move', low=0)
    clip_range_score: float = arg(50.0, 'largest reward of a token', low=0)
    ptx_coeff: float = arg(0.0, 'of the PTX term', low=0)
    actor_lr: float = arg(1e-5, 'highest learning rate of the policy', low=0)
    actor_weight_decay: float = arg(0.0, "of the policy's matrices", low=0)
    actor_lr_scheduler_type: Scheduler = arg('cosine', 'course of the learning rate of the policy')
    actor_lr_warmup_ratio: float = arg(0.0, 'share of the steps that warm up', low=0, high=1)
    actor_gradient_checkpointing: bool = arg(False, 'compute activations again in the backward pass')
    normalize_reward: bool = arg(False, "shift and scale rewards by the reward model's normaliser")

    def __post_init__(self) -> None:
        """Check what fields say together.

        Raises:
            UserError: two of them contradict each other.
        """
        self.check_lora()
        self.check_sampling(self.max_length)
        if self.ptx_coeff and not self.ptx_datasets:
            raise UserError(f'--ptx_coeff {self.ptx_coeff}: needs --ptx_datasets')


@dataclass(kw_only=True, frozen=True)
class CriticFields:
    """Critics, and the advantages that they give."""

    reward_critic_model_name_or_path: str | None = arg(
        None, 'model the reward critic starts from (default: the reward model; with a function, the policy)'
    )
    clip_range_value: float = arg(5.0, 'how far a value may move in an update', low=0)
    gamma: float = arg(1.0, 'discount of a token', low=0, high=1)
    gae_lambda: float = arg(0.95, 'of generalised advantage estimates', low=0, high=1)
    critic_lr: float = arg(5e-6, 'highest learning rate of the critics', low=0)
    critic_weight_decay: float = arg(0.0, "of the critics' matrices", low=0)
    critic_lr_scheduler_type: Scheduler = arg('constant', 'course of the learning rate of the critics')
    critic_lr_warmup_ratio: float = arg(0.0, 'share of the steps that warm up', low=0, high=1)
    critic_gradient_checkpointing: bool = arg(False, 'compute activations again in the backward pass')


@dataclass(kw_only=True, frozen=True)
class MultiplierFields:
    """Costs that must stay low, each with a multiplier."""

    cost_model_name_or_path: list[str] = arg(help='cost models, or function:NAME, one a constraint')
    normalize_cost: bool = arg(False, "scale costs by the cost model's normaliser; their sign stays")
    threshold: list[float] = arg([0.0], 'what the expected cost of a response must not exceed, one a cost model')
    lambda_init: float = arg(1.0, 'multiplier at the start', low=1e-12)
    lambda_lr: float = arg(0.1, 'step size of log and projected', low=0)
    lambda_max: float | None = arg(None, 'largest multiplier', low=1e-12)
    lambda_update: Literal['log', 'projected', 'pid', 'newton'] = arg(
        'log', 'gradient ascent on its logarithm, or on itself held at 0, a PID controller, or Newton on the dual'
    )
    lambda_pid: list[float] = arg([0.1, 0.01, 0.01], 'proportional, integral and differential gain of pid', low=0)
    lambda_update_delay_steps: int = arg(0, 'rounds before it moves', low=0)
    certify_every: int | None = arg(
        None, 'rounds between looks of the anytime gate: evidence, from --certify_datasets, that the policy as it is '
        'then keeps --threshold; certify/established may be believed of all looks together', low=1,
    )  # fmt: skip
    certify_datasets: list[str] | None = datasets_arg(
        None, 'prompts of these looks, new to all models; the safety test takes others'
    )
    certify_range: list[float] | None = arg(
        None, 'least and largest cost, for --certify_every; costs outside are cut, and the claim is of these'
    )
    certify_delta: float = arg(0.1, 'probability that any look of the run claims what is false', low=0, high=1)


def check_multipliers(config: Any) -> None:
    """Check what `MultiplierFields` say together.

    Raises:
        UserError: two of them contradict each other.
    """
    models, thresholds = config.cost_model_name_or_path, config.threshold
    if len(thresholds) not in (1, len(models)):
        raise UserError(f'--threshold: {len(thresholds)} numbers for {len(models)} cost models; give one, or one each')
    if config.lambda_max is not None and config.lambda_init > config.lambda_max:
        raise UserError(f'--lambda_init {config.lambda_init:g}: is above --lambda_max {config.lambda_max:g}')
    if len(config.lambda_pid) != 3:
        raise UserError(f'--lambda_pid: {len(config.lambda_pid)} numbers; it takes three')
    if config.lambda_update == 'newton' and not config.kl_coeff:
        raise UserError('--lambda_update newton: needs --kl_coeff above 0, by which its step is scaled')
    _check_gate(config)


def _check_gate(config: Any) -> None:
    if config.certify_every is None:
        given = [name for name in ('certify_datasets', 'certify_range') if getattr(config, name)]
        if given:
            raise UserError(f'--{given[0]}: is for --certify_every, which is not given')
        return
    if not config.certify_datasets:
        raise UserError(f'--certify_every {config.certify_every}: needs --certify_datasets')
    limits = config.certify_range or []
    if len(limits) != 2 or not (limits[0] < limits[1] and math.isfinite(limits[1] - limits[0])):
        told = f'--certify_range {" ".join(map(str, limits))}: ' if limits else '--certify_range is missing: '
        raise UserError(f'{told}two finite numbers were expected, the lower first')
    for threshold in config.threshold:
        if not limits[0] < threshold < limits[1]:
            raise UserError(f'--threshold {threshold}: is not inside --certify_range {limits[0]:g} {limits[1]:g}')
    if not 0 < config.certify_delta < 1:
        raise UserError(f'--certify_delta {config.certify_delta:g}: must be above 0 and below 1')


@dataclass(kw_only=True, frozen=True)
class PPOFields(CriticFields, RLFields):
    """PPO's."""
