"""Prompts to responses, with the log-probabilities of the law that was sampled; the one way to text.

The built-in backend prefills prompts packed and once each, whatever the number of samples; writes the cache in place;
lets rows that end leave the batch; and draws each sample from random numbers of its own, so that a response depends on
the seed, its prompt's key and its sample number, and not on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from safe_align import attention
from safe_align.decoding import Decoder
from safe_align.sampling import Progress, Response, Sampling, draw, unseen


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_ids: Sequence[int],
    keys: Sequence[int] | None = None,
    progress: Progress = unseen,
) -> list[Response]:
    """Responses, ordered by prompt and sample.

    Args:
        model: a causal language model; call it within the precision that it is to run in.
        prompts: token ids, none of them empty.
        sampling: how to draw.
        stop_ids: tokens that end a response.
        keys: what a prompt's random numbers depend on, with the seed and the sample number; its place, if None.
        progress: told of every step of decoding.
    """
    if not prompts:
        return []
    keys = list(range(len(prompts))) if keys is None else list(keys)
    pairs = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(sampling.num_samples)]
    was_training = model.training
    model.eval()
    try:
        # prompts of similar length together, samples of one prompt together
        pairs.sort(key=lambda pair: (len(prompts[pair[0]]), pair))
        responses = []
        run = HuggingFaceDecoder if sampling.backend == 'hf' or not _is_ours(model) else Decoder
        with torch.inference_mode():
            for start in range(0, len(pairs), sampling.batch_size):
                some = pairs[start : start + sampling.batch_size]
                draws = np.stack([_uniforms(sampling, keys[prompt], sample) for prompt, sample in some])
                responses += run(model, prompts, some, draws, sampling, stop_ids).responses(progress)
    finally:
        model.train(was_training)
    return sorted(responses, key=lambda response: response[:2])


def _is_ours(model: Any) -> bool:
    return model.config._attn_implementation == attention.NAME


def _uniforms(sampling: Sampling, key: int, sample: int) -> np.ndarray:
    """The random numbers of one response: (max_new_tokens,) in [0, 1)."""
    return np.random.default_rng([sampling.seed, key, sample]).random(sampling.max_new_tokens, np.float32)


class HuggingFaceDecoder:
    """`transformers`' own generate, for any model; it draws as the built-in decoder does."""

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], pairs: list[tuple[int, int]], draws: np.ndarray,
        sampling: Sampling, stop_ids: Sequence[int],
    ) -> None:  # fmt: skip
        self.model, self.prompts, self.pairs, self.draws = model, prompts, pairs, torch.from_numpy(draws)
        self.sampling, self.stop_ids = sampling, list(stop_ids)

    def responses(self, progress: Progress = unseen) -> list[Response]:
        """Prefill and decode padded on the left, with the cache of `transformers`."""
        device = next(self.model.parameters()).device
        longest = max(len(self.prompts[prompt]) for prompt, _ in self.pairs)
        rows = [list(self.prompts[prompt]) for prompt, _ in self.pairs]
        tokens = torch.tensor([[self.stop_ids[0]] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        sampled: list[tuple[Tensor, Tensor]] = []

        def process(_: Tensor, scores: Tensor) -> Tensor:
            chosen, log_probs = draw(
                scores, self.draws[:, len(sampled)].to(device), self.sampling.temperature, self.sampling.top_p
            )
            sampled.append((chosen, log_probs))
            progress(len(chosen))
            return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0.0)

        implementation, defaults = self.model.config._attn_implementation, self.model.generation_config
        self.model.set_attn_implementation('sdpa' if implementation == attention.NAME else implementation)
        self.model.generation_config = GenerationConfig()  # a model's own may change the law that is drawn from
        try:
            self.model.generate(
                tokens, attention_mask=mask, logits_processor=[process], do_sample=False, use_cache=True,
                max_new_tokens=max(map(self.sampling.room, map(len, rows))), eos_token_id=self.stop_ids,
                pad_token_id=self.stop_ids[0],
            )  # fmt: skip
        finally:
            self.model.set_attn_implementation(implementation)
            self.model.generation_config = defaults
        return [self._cut(n, pair, sampled) for n, pair in enumerate(self.pairs)]

    def _cut(self, row: int, pair: tuple[int, int], sampled: list[tuple[Tensor, Tensor]]) -> Response:
        room = self.sampling.room(len(self.prompts[pair[0]]))
        ids = [int(tokens[row]) for tokens, _ in sampled[:room]]
        end = next((n + 1 for n, token in enumerate(ids) if token in self.stop_ids), None)
        log_probs = [float(values[row]) for _, values in sampled[:room]]
        return Response(*pair, ids[:end], log_probs[:end], end is not None)
