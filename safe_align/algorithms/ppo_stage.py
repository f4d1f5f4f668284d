"""What a stage of PPO adds to one of reinforcement learning: critics, and the options that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safe_align.algorithms.actor_critic import ActorCritic, PPOOptions, Signal
from safe_align.algorithms.multiplier import Multiplier
from safe_align.algorithms.rl_stage import Parts, Workshop
from safe_align.config import UserError
from safe_align.engine import Engine
from safe_align.functions import is_function
from safe_align.models.adapting import adapt, check_targets
from safe_align.models.loading import check_length, load_tokenizer
from safe_align.models.policy import enable_checkpointing
from safe_align.models.record import base_of
from safe_align.models.score import load_score_model
from safe_align.templates import fingerprint_of


def check_critics(workshop: Workshop, kinds: Sequence[str] = ('reward', 'cost')) -> None:
    """Refuse critics that cannot read what the policy writes, before anything is written.

    Raises:
        UserError: a model is not there, or has another tokenizer.
    """
    config = workshop.config
    for kind in kinds:
        for n in range(len(workshop.models(kind))):
            place, flag = _critic(workshop, kind, n)
            tokenizer = load_tokenizer(place, flag, config.trust_remote_code)
            check_length(place, config.max_length, config.trust_remote_code)
            if workshop.lora and base_of(place) is None:
                check_targets(place, workshop.lora, config.trust_remote_code)
            if fingerprint_of(tokenizer) != workshop.template.fingerprint:
                raise UserError(
                    f"{flag} {place}: its tokenizer does not match the policy's, so it cannot be a critic; give "
                    f'--{kind}_critic_model_name_or_path a model with the tokenizer of '
                    f'{config.actor_model_name_or_path}'
                )


def reward_signal(workshop: Workshop) -> Signal:
    """Rewards, with the divergence from the reference taken off."""
    return Signal('reward', workshop.scorer('reward'), critic_of(workshop, 'reward'), kl_sign=-1)


def cost_signals(workshop: Workshop, kl_sign: int) -> list[tuple[Signal, Multiplier]]:
    """Costs, each with its multiplier."""
    return [
        (Signal(name, workshop.scorer('cost', n), critic_of(workshop, 'cost', n), kl_sign), workshop.multiplier(n))
        for n, name in enumerate(workshop.cost_names())
    ]


def critic_of(workshop: Workshop, kind: str, number: int = 0) -> Engine:
    """A critic, from the model that is to be one, or from the score model, or in a function's place from the policy.

    A policy has no head. A critic that starts from one values all at 0: what a random head says is noise in every
    advantage, which can be larger than the rewards, and moves the policy before the critic has learnt anything.

    With --lora_r it is an adapter on what it starts from, or, if that is an adapter, the same one trained further.
    """
    config: Any = workshop.config
    place, flag = _critic(workshop, kind, number)
    tokenizer = load_tokenizer(place, flag, config.trust_remote_code)
    own = place != workshop.models(kind)[number]
    lora = workshop.lora
    body = load_score_model(
        place, kind, flag, tokenizer, fresh=own, merge=not lora, in_4bit=config.load_in_4bit,
        trust_remote_code=config.trust_remote_code,
    )  # fmt: skip
    if lora:
        adapt(body, lora)
    if config.critic_gradient_checkpointing:
        enable_checkpointing(body)
    return workshop.engine(body, workshop.optimizer('critic'))


def actor_critic(
    parts: Parts, reward: Signal, constraints: Sequence[tuple[Signal, Multiplier]] = (), normalize: bool = True
) -> ActorCritic:
    """PPO with these signals; `normalize` divides combined advantages by 1 + lambda."""
    config: Any = parts.workshop.config
    options = PPOOptions(
        kl_coeff=config.kl_coeff, clip_range_ratio=config.clip_range_ratio, clip_range_score=config.clip_range_score,
        clip_range_value=config.clip_range_value, ptx_coeff=config.ptx_coeff, gamma=config.gamma,
        gae_lambda=config.gae_lambda, update_iters=config.update_iters, batch_size=parts.batch_size,
        micro_batch_tokens=config.micro_batch_tokens, normalize_advantages=normalize,
    )  # fmt: skip
    return ActorCritic(
        parts.policy, parts.reference, reward, constraints, parts.rollouts, options, parts.ptx, parts.held_out
    )


def _critic(workshop: Workshop, kind: str, number: int) -> tuple[str, str]:
    """Where a critic starts from, and the flag that says so."""
    flag = f'{kind}_critic_model_name_or_path'
    given = getattr(workshop.config, flag, None)
    score = workshop.models(kind)[number]
    if not given and is_function(score):
        return workshop.config.actor_model_name_or_path, '--actor_model_name_or_path'
    if not given:
        return score, f'--{kind}_model_name_or_path'
    return (given if isinstance(given, str) else given[number]), f'--{flag}'
