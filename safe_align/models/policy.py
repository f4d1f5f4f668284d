"""What stages read of a policy on a packed batch: log-probabilities of responses, and no logits elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from safe_align import distributed
from safe_align.config import UserError
from safe_align.datasets.packing import Packed, even_runs, pack
from safe_align.engine import Engine
from safe_align.sampling import Progress, unseen
from safe_align.templates import Template
from safe_align.tensors import divergences, segment_sum, token_log_probs, token_log_probs_and_collisions


def response_logits(engine: Engine, batch: Packed, temperature: float = 1.0) -> Tensor:
    """The logits that response tokens were drawn from, divided by the temperature: (R, V)."""
    output = engine(**response_inputs(batch))
    logits = output.logits.squeeze(0)  # whose gradient is a view; that of [0] is a copy into zeros
    return logits if temperature == 1.0 else logits / temperature


def response_inputs(batch: Packed) -> dict[str, Any]:
    """What a policy is called with for logits where response tokens were drawn, and nowhere else."""
    return {
        'input_ids': batch.tokens, 'position_ids': batch.positions, 'layout': batch.layout,
        'logits_to_keep': batch.response - 1, 'use_cache': False,
    }  # fmt: skip


def response_log_probs(engine: Engine, batch: Packed, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of response tokens, float32: (R,)."""
    return token_log_probs(response_logits(engine, batch, temperature), batch.targets)


@torch.no_grad()
def response_divergences(
    policy: Engine, reference: Engine, batch: Packed, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """KL(policy || reference) of the next token, and the log-ratio of the one that came, at response tokens: (R,) each.

    A policy that is its own reference is asked once.
    """
    logits = response_logits(policy, batch)
    others = logits if reference is policy else response_logits(reference, batch)
    return divergences(logits, others, batch.targets, temperature)


def divergences_along(
    policy: Engine, reference: Engine, sequences: Sequence[tuple[np.ndarray, np.ndarray]], temperature: float,
    budget: int, progress: Progress = unseen,
) -> Tensor:  # fmt: skip
    """KL(policy || reference) along each response, and its Monte-Carlo estimate, in nats: (2, N) float64.

    The first sums the KL of the next token, exact over the vocabulary, over the response's positions; the second the
    log-ratios of the tokens drawn. Both have the KL of whole responses as their mean, by its chain rule; the first
    varies less.

    Args:
        policy: which drew the responses at this temperature.
        reference: what it is compared with, at the same temperature.
        sequences: prompts and responses as `pack` takes them.
        temperature: both models' logits are divided by it.
        budget: tokens of a micro-batch.
        progress: told of the tokens that are done.
    """
    found = torch.zeros(2, len(sequences), dtype=torch.float64, device=policy.device)
    runs = even_runs([len(ids) for ids, _ in sequences], budget)  # under ZeRO 3 each is a collective
    for run in runs if sequences else ():
        batch = pack([sequences[n] for n in run or [0]]).to(policy.device)
        values = response_divergences(policy, reference, batch, temperature)
        sums = [segment_sum(one.double(), batch.segments, batch.num_sequences) for one in values]
        found[:, run or [0]] = torch.stack(sums)
        progress(batch.num_tokens if run else 0)
    return found


def read_responses(
    engine: Engine, batch: Packed, *, values: bool = False, collisions: bool = False
) -> dict[str, Tensor]:
    """What one forward pass says of response tokens, (R,) each, in float32.

    Args:
        engine: of a policy.
        batch: its sequences.
        values: whether to read `values`, which a `ValuedPolicy` has.
        collisions: whether to compute `token_log_collisions`, log sum_v pi(v)^2 where each token stands.

    Returns:
        `policy_token_logps`, and what is asked for.
    """
    output = engine(**response_inputs(batch))
    logits = output.logits.squeeze(0)  # whose gradient is a view; that of [0] is a copy into zeros
    found = {'values': output.values.squeeze(0)} if values else {}
    if not collisions:
        return {'policy_token_logps': token_log_probs(logits, batch.targets), **found}
    log_probs, log_collisions = token_log_probs_and_collisions(logits, batch.targets)
    return {'policy_token_logps': log_probs, 'token_log_collisions': log_collisions, **found}


def enable_checkpointing(model: nn.Module) -> None:
    """Recompute the activations of layers in the backward pass, with dropout or without.

    `transformers` does so in training mode alone, and PPO trains in evaluation mode.

    Raises:
        UserError: the model has no layers that can be computed again.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f'gradient checkpointing: {type(model).__name__} cannot compute its layers again')
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _stop_where_turns_end(generation: Any, tokenizer: Any) -> None:
    """A turn may end with another token than a text does, and whoever opens the directory stops there too."""
    known = generation.eos_token_id
    ends = {*Template(tokenizer).stop_ids, *([known] if isinstance(known, int) else known or ())}
    generation.eos_token_id = sorted(ends) if len(ends) > 1 else ends.pop()


def save_model(engine: Engine, tokenizer: Any, half: bool, directory: Path) -> None:
    """An ordinary Hugging Face directory: weights, config, tokenizer, chat template.

    Raises:
        UserError: a weight is not finite.
    """
    model, weights = bare(engine.module), weights_of(engine, half, frozen=True)
    if not distributed.is_main():
        return
    if model.can_generate():
        _stop_where_turns_end(model.generation_config, tokenizer)
    attention = model.config._attn_implementation
    model.config._attn_implementation = None  # ours is unknown to who opens the directory
    model.save_pretrained(directory, state_dict=weights)
    model.config.dtype = torch.bfloat16 if half else torch.float32  # that line has put the type in memory there
    model.config.save_pretrained(directory)
    model.config._attn_implementation = attention
    tokenizer.save_pretrained(directory)
    for file in directory.glob('*.safetensors'):  # which safetensors lets nobody else read
        file.chmod((directory / 'config.json').stat().st_mode)


def bare(module: nn.Module) -> Any:
    """The `transformers` model that a policy is, or that a model with a head of its own holds."""
    return module if isinstance(module, PreTrainedModel) else module.model


def weights_of(engine: Engine, half: bool, frozen: bool) -> dict[str, Tensor]:
    """What was trained, under the names of the `transformers` model, and what is `frozen` if that is asked for.

    Raises:
        UserError: one is not finite.
    """
    prefix = '' if bare(engine.module) is engine.module else 'model.'
    state, _ = engine.state(moments=False, frozen=frozen)
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise UserError('the weights at the end are not finite, so they are not kept; try a lower learning rate')
    dtype = torch.bfloat16 if half else torch.float32
    return {
        name.removeprefix(prefix).removesuffix('.weights'): value.to(dtype)
        for name, value in state.items()
        if name.startswith(prefix)
    }
