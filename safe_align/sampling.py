"""How a response is drawn, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from safe_align.laws import Law

Progress = Callable[[int], object]  # called with the number of tokens that were drawn together
Drawn = Callable[[Tensor], object]  # called with those tokens: (B,)


def unseen(_: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Args:
        max_new_tokens: a response that has not ended by then is cut off.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: the smallest set of likeliest tokens with this much probability is drawn from.
        num_samples: responses a prompt.
        seed: of the draw.
        batch_size: rows decoded together; memory depends on it, responses do not.
        backend: 'builtin', or 'hf' for `transformers`' own generate.
        max_length: of prompt and response together, where a response is cut off too.
        laws: of each response to a prompt, whose temperatures multiply `temperature`; the policy's own, where empty.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    num_samples: int = 1
    seed: int = 0
    batch_size: int = 128
    backend: Literal['builtin', 'hf'] = 'builtin'
    max_length: int | None = None
    laws: tuple[Law, ...] = ()

    def law(self, sample: int) -> Law:
        """Of a response, by its number."""
        return self.laws[sample] if self.laws else Law()

    def room(self, prompt: int) -> int:
        """Most tokens of a response to a prompt of this many tokens; at least 1."""
        left = self.max_new_tokens if self.max_length is None else self.max_length - prompt
        return max(1, min(self.max_new_tokens, left))


def round_seed(seed: int, number: int) -> int:
    """The seed of a round, or of an iteration: each draws anew."""
    return (seed << 24) + number


class Response(NamedTuple):
    """One sample. `ids` ends with a stop token if `is_finished`; `log_probs` has one number a token."""

    prompt: int
    sample: int
    ids: list[int]
    log_probs: list[float]
    is_finished: bool


class Drawing:
    """Draws a token a row from what one model or two say of it.

    Args:
        laws: of each row; all of them read the same models.
        sampling: its temperature, and the share of the likeliest tokens that is drawn from.
        device: where logits are.
    """

    def __init__(self, laws: Sequence[Law], sampling: Sampling, device: torch.device) -> None:
        self.temperature, self.top_p = sampling.temperature, sampling.top_p
        self.weights: Tensor | None = None
        if set(laws) == {Law()}:
            return
        weights = torch.tensor(
            [[weight for weight in law[:2] if weight] for law in laws], dtype=torch.float32, device=device
        )
        if self.temperature:
            heat = torch.tensor([self.temperature * law.temperature for law in laws], device=device)
            self.weights, self.temperature = weights / heat[:, None], 1.0
        else:
            self.weights = weights

    def __call__(self, logits: Sequence[Tensor], uniforms: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and their log-probabilities, (B,) each, for `rows`, of logits (B, V) a model."""
        if self.weights is None:
            return draw(logits[0], uniforms, self.temperature, self.top_p)
        width = min(one.shape[-1] for one in logits)  # one may have been padded further
        weights = self.weights[rows]
        mixed = logits[0][:, :width] * weights[:, :1]  # in float32, in one pass over the vocabulary each
        for n, one in enumerate(logits[1:], 1):
            mixed = torch.addcmul(mixed, one[:, :width], weights[:, n, None])
        return draw(mixed, uniforms, self.temperature, self.top_p)


def draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Tokens by inversion of the distribution function, and their log-probabilities: (B, V), (B,) -> (B,), (B,)."""
    logits = logits.float()
    if temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, torch.zeros_like(uniforms)
    if temperature != 1:
        logits = logits / temperature
    if top_p < 1:
        logits = _nucleus(logits, top_p)
    top = logits.amax(-1, keepdim=True)
    mass = (logits - top).exp_().cumsum(-1)
    total = mass[:, -1:]
    # strictly less than the total, so that a token without mass is never drawn
    tokens = torch.searchsorted(mass, (uniforms[:, None] * total).clamp(max=total * (1 - 2**-23)), right=True)
    tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens[:, 0], (logits.gather(-1, tokens) - top - total.log())[:, 0]


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Logits with all but the nucleus at -inf."""
    ordered, order = logits.sort(-1, descending=True)
    probs = ordered.softmax(-1)
    outside = probs.cumsum(-1) - probs >= top_p
    outside[:, 0] = False  # the likeliest token is always inside
    return logits.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
