"""A frozen score model as a judge of responses, whatever tokenizer wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from safe_align.datasets.packing import pack, split_by_tokens
from safe_align.datasets.tokenized import fingerprint_of
from safe_align.engine import Engine, Placement
from safe_align.models.loading import load_tokenizer
from safe_align.models.record import record_of
from safe_align.models.score import load_score_model
from safe_align.placing import make_engine
from safe_align.templates import Template


@dataclass(frozen=True)
class Conversation:
    """A prompt and its answer: as text, and as the ids of the policy that gave it."""

    turns: list[str]
    prompt: list[int]
    response: list[int]
    text: str


@dataclass(frozen=True)
class Scorer:
    """Scores whole responses. Where the policy's tokenizer and template are its own, ids are taken as they are."""

    engine: Engine
    template: Template
    same_ids: bool
    budget: int
    normalize: bool

    def reading(self, policy: Template) -> Scorer:
        """The same model for what a policy with this template writes."""
        own = self.template
        same = fingerprint_of(own.tokenizer) == fingerprint_of(policy.tokenizer) and own.hash == policy.hash
        return replace(self, same_ids=same)

    def __call__(self, conversations: Sequence[Conversation]) -> Tensor:
        """One score each, read at the end of the response: (N,) float32."""
        sequences = [
            [*c.prompt, *c.response]
            if self.same_ids
            else [*self.template.prompt(c.turns), *self.template.response(c.text)]
            for c in conversations
        ]
        scores = torch.empty(len(sequences), device=self.engine.device)
        with torch.no_grad():
            for run in split_by_tokens([len(ids) for ids in sequences], self.budget):
                batch = pack([(np.array(sequences[n]), np.zeros(len(sequences[n]))) for n in run]).to(
                    self.engine.device
                )
                ends = batch.layout.offsets[1:].long() - 1
                scores[run] = self.engine(batch.tokens, batch.positions, batch.layout, ends)
        return self.engine.module.normalizer(scores) if self.normalize else scores


def load_scorer(
    name_or_path: str, kind: str, flag: str, placement: Placement, policy: Template, *, budget: int,
    normalize: bool = False, trust_remote_code: bool = False,
) -> Scorer:  # fmt: skip
    """A frozen reward or cost model that scores what a policy with the template `policy` writes.

    Raises:
        UserError: it is not there, or is another kind of model.
    """
    tokenizer = load_tokenizer(name_or_path, flag, trust_remote_code)
    trained = (record_of(name_or_path) or {}).get('arguments', {})
    template = Template(tokenizer, trained.get('template', 'auto'))  # as in its own training, whatever the policy's is
    model = load_score_model(name_or_path, kind, flag, tokenizer, trust_remote_code=trust_remote_code)
    return Scorer(make_engine(model, placement), template, False, budget, normalize).reading(policy)
