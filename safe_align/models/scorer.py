"""A frozen score model, or a score function, as a judge of responses, whatever tokenizer wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from safe_align import distributed, functions
from safe_align.config import UserError
from safe_align.datasets.packing import even_runs, pack
from safe_align.engine import Engine, Placement
from safe_align.models.loading import check_kind, check_length, load_tokenizer
from safe_align.models.score import load_score_model
from safe_align.placing import make_engine
from safe_align.sampling import Progress, unseen
from safe_align.templates import Template


@dataclass(frozen=True)
class Conversation:
    """A prompt and its answer: as text, and as the ids of the policy that gave it; the prompt's may be left out."""

    turns: list[str]
    prompt: list[int]
    response: list[int]
    text: str

    @property
    def num_tokens(self) -> int:
        """Of the policy that gave it."""
        return len(self.prompt) + len(self.response)

    @property
    def sequence(self) -> tuple[np.ndarray, np.ndarray]:
        """The policy's ids of all of it, and which of them are response, as `pack` takes them: (T,) each."""
        return np.array([*self.prompt, *self.response]), np.arange(self.num_tokens) >= len(self.prompt)


class Writer(Protocol):
    """Who wrote responses: a template, or what is known of one."""

    @property
    def fingerprint(self) -> str:
        """Of its tokenizer."""

    @property
    def hash(self) -> str:
        """Of how it writes a conversation."""


class Scorer(Protocol):
    """Scores whole responses."""

    def reading(self, policy: Writer) -> Scorer:
        """The same for what a policy with this template writes."""

    def __call__(self, conversations: Sequence[Conversation], progress: Progress = unseen) -> Tensor:
        """One score each: (N,) float32; `progress` is told of the tokens that are done."""


@dataclass(frozen=True)
class FunctionScorer:
    """A score function; it reads text, whoever wrote it.

    Raises:
        UserError: when called: the function raised, or returned no finite number.
    """

    function: functions.ScoreFunction

    def reading(self, policy: Writer) -> FunctionScorer:
        """See `Scorer`."""
        return self

    def __call__(self, conversations: Sequence[Conversation], progress: Progress = unseen) -> Tensor:
        """See `Scorer`."""
        scores = []
        for one in conversations:
            scores.append(self.function(one.turns, one.text))
            progress(one.num_tokens)
        return torch.tensor(scores, dtype=torch.float32, device=distributed.local_device())


@dataclass(frozen=True)
class ModelScorer:
    """A score model. Where the policy's tokenizer and template are its own, ids are taken as they are."""

    name: str  # the flag, and what was given to it
    engine: Engine
    template: Template
    same_ids: bool
    budget: int
    normalize: bool

    def reading(self, policy: Writer) -> ModelScorer:
        """The same model for what a policy with this template writes."""
        own = self.template
        same = (own.fingerprint, own.hash) == (policy.fingerprint, policy.hash)
        return replace(self, same_ids=same)

    def __call__(self, conversations: Sequence[Conversation], progress: Progress = unseen) -> Tensor:
        """One score each, read at the end of the response: (N,) float32.

        A response that was cut off is read as if it had ended there: a score model has learnt to read ends alone.

        Raises:
            UserError: one is not finite, which would be unsafe and worse than nothing, or switch a constraint off.
        """
        sequences = [
            [*(c.prompt or self.template.prompt(c.turns)), *self.template.ended(c.response)]
            if self.same_ids
            else [*self.template.prompt(c.turns), *self.template.response(c.text)]
            for c in conversations
        ]
        scores = torch.empty(len(sequences), device=self.engine.device)
        runs = even_runs([len(ids) for ids in sequences], self.budget)  # under ZeRO 3 each is a collective
        with torch.no_grad():
            for run in runs if sequences else ():
                read = run or [0]
                batch = pack([(np.array(sequences[n]), np.zeros(len(sequences[n]))) for n in read]).to(
                    self.engine.device
                )
                scores[read] = self.engine(batch.tokens, batch.positions, batch.layout, batch.ends)
                progress(sum(conversations[n].num_tokens for n in run))
        if not scores.isfinite().all():
            raise UserError(f'{self.name}: a score is not finite')
        return self.engine.module.normalizer(scores) if self.normalize else scores


def check_scorer(
    name_or_path: str, kind: str, flag: str, max_length: int, trust_remote_code: bool = False, *,
    normalize: bool = False,
) -> None:  # fmt: skip
    """Refuse what cannot score, before anything is written.

    Raises:
        UserError: there is no such model or function, it is another kind of model, or cannot read that many tokens.
    """
    if not functions.is_function(name_or_path):
        check_kind(name_or_path, kind, flag, trust_remote_code)
        check_length(name_or_path, max_length, trust_remote_code, ends=True)
        return
    functions.find(name_or_path, flag)
    if normalize:
        raise UserError(f'{flag} {name_or_path}: a function has no normaliser; leave --normalize_{kind} out')


def load_scorer(
    name_or_path: str, kind: str, flag: str, placement: Placement, policy: Writer, *, budget: int,
    normalize: bool = False, merge: bool = True, in_4bit: bool = False, trust_remote_code: bool = False,
) -> Scorer:  # fmt: skip
    """A score function, or a frozen reward or cost model that scores what a policy with the template `policy` writes.

    Without `merge` the layers of an adapter stay apart from its base, which other models may hold too, maybe `in_4bit`.

    Raises:
        UserError: it is not there, or is another kind of model.
    """
    if functions.is_function(name_or_path):
        return FunctionScorer(functions.find(name_or_path, flag))
    template = own_template(name_or_path, flag, trust_remote_code)
    model = load_score_model(
        name_or_path, kind, flag, template.tokenizer, merge=merge, in_4bit=in_4bit, trust_remote_code=trust_remote_code
    )
    name, engine = f'{flag} {name_or_path}', make_engine(model, placement)
    return ModelScorer(name, engine, template, False, budget, normalize).reading(policy)


def own_template(name_or_path: str, flag: str, trust_remote_code: bool = False) -> Template:
    """How a score model reads a conversation: as in its own training, whatever template a policy has.

    Raises:
        UserError: it has no tokenizer, or one without an end of a response.
    """
    return Template(load_tokenizer(name_or_path, flag, trust_remote_code))
