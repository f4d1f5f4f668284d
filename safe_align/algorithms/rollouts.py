"""Responses of the policy in training, as packed batches, and what was seen of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safe_align import distributed
from safe_align.config import UserError
from safe_align.datasets.mixture import Mixture, build
from safe_align.datasets.packing import Batches, Packed, even_runs, pack
from safe_align.engine import Engine
from safe_align.generation import Response, Sampling, generate
from safe_align.laws import Law
from safe_align.models.scorer import Conversation
from safe_align.models.valued import without_values
from safe_align.sampling import round_seed
from safe_align.templates import Template


def prompt_rows(config: Any, template: Template, specs: list[str], flag: str) -> Mixture:
    """Prompts that leave room for a response; `config` has `DataFields` and `SamplingFields`."""
    room = config.max_length - (config.max_new_tokens or 1)
    return build(specs, 'prompt', template, room, seed=config.seed, strict=config.strict_data, flag=flag)


def rounds_of(config: Any, prompts: Mixture, least: int = 1) -> Batches:
    """Which prompts each round draws responses to, `least` at least; each process has some, and none counts twice."""
    processes = distributed.world_size()
    if len(prompts) < processes:
        raise UserError(f'--train_datasets: {len(prompts)} prompts cannot be shared out to {processes} processes')
    if len(prompts) < least:
        raise UserError(f'--train_datasets: {len(prompts)} prompts; a round takes {least} or more')
    return Batches(
        prompts, config.per_device_prompt_batch_size, 1 << 30, config.seed, distributed.rank(), processes,
        least=max(processes, least),
    )  # fmt: skip


def sampling_of(config: Any, prompts: Mixture, laws: Sequence[Law]) -> Sampling:
    """How responses to these prompts are drawn, one a law."""
    longest = config.max_new_tokens or config.max_length - int(prompts.lengths.min())
    return Sampling(
        longest, config.temperature, num_samples=len(laws), seed=config.seed,
        batch_size=config.generation_batch_size, backend=config.generation_backend, max_length=config.max_length,
        laws=tuple(laws),
    )  # fmt: skip


@dataclass(frozen=True)
class Sampled:
    """A response, the conversation it ends, and its row in the data."""

    row: int
    response: Response
    conversation: Conversation


class Rollouts:
    """Draws responses to rows of a data set of prompts.

    Args:
        engine: the policy.
        template: how it writes.
        prompts: the data.
        sampling: how to draw; the seed is one a round.
        reference: the other model that its laws read, if they do.
    """

    def __init__(
        self, engine: Engine, template: Template, prompts: Mixture, sampling: Sampling, reference: Engine | None = None
    ) -> None:
        self.engine, self.template, self.sampling, self.reference = engine, template, sampling, reference
        self.turns, self.hashes = prompts.turns(), prompts.hashes

    def sample(self, rows: Sequence[int], round_number: int) -> list[Sampled]:
        """Responses to these rows, those of one prompt next to each other."""
        prompts = [self.template.prompt(self.turns[row]) for row in rows]
        sampling = replace(self.sampling, seed=round_seed(self.sampling.seed, round_number))
        with self.engine.whole(), self.engine.placement.compute(), ExitStack() as stack:
            if self.reference:
                stack.enter_context(self.reference.whole())
            responses = generate(
                without_values(self.engine.module), prompts, sampling, self.template.stop_ids,
                [int(self.hashes[row]) for row in rows], reference=self.reference.module if self.reference else None,
            )  # fmt: skip
        return [
            Sampled(
                rows[one.prompt],
                one,
                Conversation(self.turns[rows[one.prompt]], prompts[one.prompt], one.ids, self.template.text(one.ids)),
            )
            for one in responses
        ]


def packed_runs(sampled: Sequence[Sampled], budget: int, counts: bool = True) -> list[tuple[list[int], Packed]]:
    """Micro-batches of these samples, as many on every process, each with the numbers of its samples.

    Without `counts` their weights are 0.
    """
    runs = even_runs([one.conversation.num_tokens for one in sampled], budget)
    return [(run or [0], _pack([sampled[n] for n in run or [0]], counts and bool(run))) for run in runs]


def _pack(sampled: Sequence[Sampled], counts: bool) -> Packed:
    weights = np.full(len(sampled), float(counts), np.float32)
    return pack([one.conversation.sequence for one in sampled], {'weight': weights}, [one.row for one in sampled])


def of_everyone(sampled: Sequence[Sampled], values: Tensor) -> list[float]:
    """One number a response, (N,), of all processes, in the order of the data, however prompts were shared out."""
    own = [(one.row, one.response.sample, value) for one, value in zip(sampled, values.tolist(), strict=True)]
    return [value for *_, value in sorted(distributed.gather_over_ranks(own))]


def length_metrics(sampled: Sequence[Sampled]) -> dict[str, float]:
    """Means over all processes: response tokens, and the share that was cut off."""
    lengths = torch.tensor([float(len(one.response.ids)) for one in sampled])
    cut = torch.tensor([float(not one.response.is_finished) for one in sampled])
    totals = distributed.sum_over_ranks({'n': float(len(sampled)), 'length': lengths.sum(), 'cut': cut.sum()})
    longest = max(distributed.gather_over_ranks([float(lengths.max())]))
    return {
        'train/mean_generated_length': totals['length'] / totals['n'],
        'train/max_generated_length': longest,
        'train/cut_off': totals['cut'] / totals['n'],
    }
