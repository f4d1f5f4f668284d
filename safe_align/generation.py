"""Prompts to responses, with the log-probabilities of the law that was sampled; the one way to text.

The built-in backend prefills prompts packed and once each, whatever the number of samples; writes the cache in place;
lets rows that end leave the batch; and draws each sample from random numbers of its own, so that a response depends on
the seed, its prompt's key and its sample number, and not on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationConfig

from safe_align import attention
from safe_align.decoding import Decoder
from safe_align.sampling import Drawing, Drawn, Progress, Response, Sampling, unseen


def generate(
    model: nn.Module | None,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_ids: Sequence[int],
    keys: Sequence[int] | None = None,
    progress: Progress = unseen,
    reference: nn.Module | None = None,
) -> list[Response]:
    """Responses, ordered by prompt and sample.

    Args:
        model: a causal language model; call it within the precision that it is to run in; None, if no law reads it.
        prompts: token ids, none of them empty.
        sampling: how to draw.
        stop_ids: tokens that end a response.
        keys: what a prompt's random numbers depend on, with the seed and the sample number; its place, if None.
        progress: told of every step of decoding.
        reference: the other model of `sampling.laws`, with the same vocabulary.
    """
    if not prompts:
        return []
    keys = list(range(len(prompts))) if keys is None else list(keys)
    pairs = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(sampling.num_samples)]
    groups: dict[tuple[bool, bool], list[tuple[int, int]]] = {}  # by the models that are read
    for pair in pairs:
        groups.setdefault(sampling.law(pair[1]).models, []).append(pair)
    responses = []
    for reads, some in groups.items():
        models = [one for one, is_read in zip((model, reference), reads, strict=True) if is_read and one is not None]
        # prompts of similar length together, samples of one prompt together
        some.sort(key=lambda pair: (len(prompts[pair[0]]), pair))
        with _evaluating(models), torch.inference_mode():
            for start in range(0, len(some), sampling.batch_size):
                rows = some[start : start + sampling.batch_size]
                responses += _decode(
                    models, prompts, rows, sampling, stop_ids, keys, lambda tokens: progress(len(tokens))
                )
    return sorted(responses, key=lambda response: response[:2])


def stream(
    model: nn.Module, prompt: Sequence[int], sampling: Sampling, stop_ids: Sequence[int], key: int,
    drawn: Callable[[int], object],
) -> Response:  # fmt: skip
    """The first response that `generate` draws to a prompt with this key.

    Args:
        model: see `generate`.
        prompt: token ids.
        sampling: how to draw.
        stop_ids: tokens that end the response.
        key: what its random numbers depend on, with the seed.
        drawn: called with each token as it comes, the one that ends the response too; what it raises ends the drawing.
    """
    with _evaluating([model]), torch.inference_mode():
        (response,) = _decode([model], [prompt], [(0, 0)], sampling, stop_ids, [key], lambda tokens: drawn(int(tokens)))
    return response


def _decode(
    models: Sequence[Any], prompts: Sequence[Sequence[int]], rows: list[tuple[int, int]], sampling: Sampling,
    stop_ids: Sequence[int], keys: Sequence[int], drawn: Drawn,
) -> list[Response]:  # fmt: skip
    """Responses to these prompts and samples, decoded together."""
    ours = sampling.backend == 'builtin' and all(map(_is_ours, models))
    draws = np.stack([_uniforms(sampling, keys[prompt], sample) for prompt, sample in rows])
    device = next(models[0].parameters()).device
    drawing = Drawing([sampling.law(sample) for _, sample in rows], sampling, device)
    run = Decoder if ours else HuggingFaceDecoder
    return run(models, prompts, rows, draws, drawing, sampling, stop_ids).responses(drawn)


@contextmanager
def _evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    """Without dropout."""
    before = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, was_training in zip(models, before, strict=True):
            model.train(was_training)


def _is_ours(model: Any) -> bool:
    return model.config._attn_implementation == attention.NAME


def _uniforms(sampling: Sampling, key: int, sample: int) -> np.ndarray:
    """The random numbers of one response: (max_new_tokens,) in [0, 1)."""
    return np.random.default_rng([sampling.seed, key, sample]).random(sampling.max_new_tokens, np.float32)


class HuggingFaceDecoder:
    """`transformers`' own generate, for any model; it draws as the built-in decoder does."""

    def __init__(
        self, models: Sequence[Any], prompts: Sequence[Sequence[int]], pairs: list[tuple[int, int]], draws: np.ndarray,
        drawing: Drawing, sampling: Sampling, stop_ids: Sequence[int],
    ) -> None:  # fmt: skip
        self.models, self.prompts, self.pairs, self.draws = models, prompts, pairs, torch.from_numpy(draws)
        self.drawing, self.sampling, self.stop_ids = drawing, sampling, list(stop_ids)

    def responses(self, drawn: Drawn) -> list[Response]:
        """Prefill and decode padded on the left, with the cache of `transformers`."""
        model, *others = self.models
        device = next(model.parameters()).device
        rows = [list(self.prompts[prompt]) for prompt, _ in self.pairs]
        longest = max(map(len, rows))
        tokens = torch.tensor([[self.stop_ids[0]] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        beside = [Beside(other, mask) for other in others]
        sampled: list[tuple[Tensor, Tensor]] = []

        def process(ids: Tensor, scores: Tensor) -> Tensor:
            logits = [scores, *(one(ids) for one in beside)]
            uniforms = self.draws[:, len(sampled)].to(device)
            chosen, log_probs = self.drawing(logits, uniforms, torch.arange(len(rows), device=device))
            sampled.append((chosen, log_probs))
            drawn(chosen)
            return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0.0)

        with ExitStack() as stack:
            for one in self.models:
                stack.enter_context(_plain(one))
            model.generate(
                tokens, attention_mask=mask, logits_processor=[process], do_sample=False, use_cache=True,
                max_new_tokens=max(map(self.sampling.room, map(len, rows))), eos_token_id=self.stop_ids,
                pad_token_id=self.stop_ids[0],
            )  # fmt: skip
        return [self._cut(n, pair, sampled) for n, pair in enumerate(self.pairs)]

    def _cut(self, row: int, pair: tuple[int, int], sampled: list[tuple[Tensor, Tensor]]) -> Response:
        room = self.sampling.room(len(self.prompts[pair[0]]))
        ids = [int(tokens[row]) for tokens, _ in sampled[:room]]
        end = next((n + 1 for n, token in enumerate(ids) if token in self.stop_ids), None)
        log_probs = [float(values[row]) for _, values in sampled[:room]]
        return Response(*pair, ids[:end], log_probs[:end], end is not None)


class Beside:
    """Another model that reads what is generated: called with all ids so far, (B, L), it gives the next logits."""

    def __init__(self, model: Any, mask: Tensor) -> None:
        self.model, self.mask, self.cache, self.seen = model, mask, DynamicCache(), 0

    def __call__(self, ids: Tensor) -> Tensor:
        """The logits of the next token: (B, V)."""
        self.mask = F.pad(self.mask, (0, ids.shape[1] - self.mask.shape[1]), value=1)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        logits = self.model(
            ids[:, self.seen :], attention_mask=self.mask, position_ids=positions[:, self.seen :],
            past_key_values=self.cache, use_cache=True, logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        self.seen = ids.shape[1]
        return logits


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """With attention and settings of `transformers`; a model's own settings may change the law that is drawn from."""
    implementation, defaults = model.config._attn_implementation, model.generation_config
    model.set_attn_implementation('sdpa' if implementation == attention.NAME else implementation)
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)
        model.generation_config = defaults
