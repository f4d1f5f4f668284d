"""What algorithms of reinforcement learning do alike with a policy: look at responses under it, and learn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from safe_align import distributed
from safe_align.algorithms.experience import Experience, Pretraining, RunningSums
from safe_align.algorithms.rollouts import Rollouts, Sampled, packed_runs
from safe_align.algorithms.surrogates import clipped_surrogate, k3
from safe_align.datasets.packing import Batches, Packed
from safe_align.engine import Engine
from safe_align.finetune.loss import sft_loss
from safe_align.loop import Loss, Sum
from safe_align.models.policy import response_log_probs, response_logits
from safe_align.models.scorer import Conversation
from safe_align.tensors import token_entropies, token_log_probs

Scores = Callable[[Sequence[Conversation]], dict[str, Tensor]]


def rows_of(batch: Sequence[Packed]) -> list[int]:
    """The rows that a round draws responses to, on this process."""
    return [row for micro in batch for row, weight in zip(micro.rows, micro.fields['weight'], strict=True) if weight]


def split(sampled: Sequence[Sampled], size: int, budget: int, engine: Engine) -> list[list[tuple[list[int], Packed]]]:
    """The steps of a round, of `size` responses a process, as micro-batches with the numbers of their responses.

    What is in a step does not depend on how prompts were shared out, so a process may have more of it than another. One
    that has none has its first response once more, which counts for nothing.
    """
    names = [(len(one.conversation.prompt), one.row, one.response.sample) for one in sampled]
    everyone = sorted(distributed.gather_over_ranks(names))
    whole = size * distributed.world_size()
    step_of = {name: place // whole for place, name in enumerate(everyone)}
    steps = []
    for step in range(-(-len(everyone) // whole)):
        own = [n for n, name in enumerate(names) if step_of[name] == step]
        runs = packed_runs([sampled[n] for n in own or [0]], budget, counts=bool(own))
        steps.append([([(own or [0])[n] for n in run], packed.to(engine.device)) for run, packed in runs])
    return steps


@torch.no_grad()
def observe(
    policy: Engine, reference: Engine, batch: Packed, sampled: Sequence[Sampled], temperature: float, sums: RunningSums
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of response tokens and their excess over the reference's, (R,) each; `sums` gets their means.

    Args:
        policy: as it was when it drew the responses.
        reference: what it must stay near.
        batch: the responses.
        sampled: the same, in the batch's order.
        temperature: of the draw.
        sums: of the round.
    """
    logits = response_logits(policy, batch, temperature)
    log_probs, entropies = token_log_probs(logits, batch.targets), token_entropies(logits)
    del logits
    log_ratio = log_probs - response_log_probs(reference, batch, temperature)
    drawn = torch.tensor([p for one in sampled for p in one.response.log_probs], device=batch.tokens.device)
    weights = batch.weights[batch.segments]
    sums.add('kl_divergence', log_ratio * weights, batch.weights.sum())
    sums.add('kl_k3', k3(log_ratio) * weights, batch.weights.sum())
    sums.add('entropy', entropies * weights, weights.sum())
    sums.add('sampler_mismatch', (drawn - log_probs).abs() * weights, weights.sum())
    return log_probs, log_ratio


def policy_loss(
    policy: Engine, micro: Experience, clip: float, temperature: float, per: str
) -> tuple[list[Loss], dict[str, Sum]]:
    """The clipped surrogate, a mean over `per` ('tokens' or 'rows'), and what it says of the ratio."""
    batch = micro.batch
    weights = batch.weights[batch.segments]
    log_probs = response_log_probs(policy, batch, temperature)
    losses, ratio = clipped_surrogate(log_probs, micro.log_probs, micro.advantages, clip)
    total, ratio = (losses * weights).sum(), ratio.detach()
    return [Loss(policy, total, per)], {
        'actor_loss': Sum(total, per),
        'ratio': Sum((ratio * weights).sum(), 'tokens'),
        'clip_fraction_low': Sum(((ratio < 1 - clip) * weights).sum(), 'tokens'),
        'clip_fraction_high': Sum(((ratio > 1 + clip) * weights).sum(), 'tokens'),
    }


def with_ptx(steps: Sequence[Sequence[Experience]], ptx: Batches | None, first: int, engine: Engine) -> list[list[Any]]:
    """Steps, the number `first` of all and on, with the PTX micro-batches of each before the rest.

    They come first so that the critics' last share of a step is the last of all.
    """
    if ptx is None:
        return [list(step) for step in steps]
    return [
        [*(Pretraining(micro.to(engine.device)) for micro in ptx.step(first + n)), *step]
        for n, step in enumerate(steps)
    ]


def ptx_loss(policy: Engine, micro: Pretraining, coeff: float) -> tuple[list[Loss], dict[str, Sum]]:
    """The PTX term of a micro-batch."""
    total, _, _ = sft_loss(policy, micro.batch)
    return [Loss(policy, coeff * total, 'ptx_tokens')], {'ptx_loss': Sum(total, 'ptx_tokens')}


def held_out_scores(micro: Packed, rollouts: Rollouts, scores: Scores) -> dict[str, Sum]:
    """Scores of responses to held-out prompts, drawn with the same random numbers each time."""
    sampled = rollouts.sample(micro.rows, 0)
    count = rollouts.sampling.num_samples
    share = micro.fields['weight'].repeat_interleave(count) / count
    found = scores([one.conversation for one in sampled])
    return {name: Sum((values.cpu() * share).sum(), 'rows') for name, values in found.items()}
