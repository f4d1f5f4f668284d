"""Questions and answers as ids, and the log-probabilities of answers, those of a question in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from safe_align.config import UserError
from safe_align.datasets.packing import pack, split_by_tokens
from safe_align.engine import Engine
from safe_align.models.policy import response_log_probs
from safe_align.sampling import Progress, unseen
from safe_align.tensors import segment_sum


class Asked(NamedTuple):
    """A question's ids, those of answers to it, and how many of its own were cut off at its beginning."""

    prompt: list[int]
    answers: list[list[int]]
    num_cut: int


class Encoder:
    """Plain text as ids, as lm-evaluation-harness makes them.

    The white space that a question ends with is read as the beginning of the answer, question and answer are encoded
    as one text, and what follows the question's own ids is the answer. BIG-bench's own models encode the two apart: a
    question then ends in a lone space, which a tokenizer's model has hardly ever seen before a word. The begin token is
    there if the tokenizer adds one to any text. A question that is too long loses its beginning, never that token.

    Args:
        tokenizer: of the policy.
        max_length: tokens of question and answer together.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        bos, first = tokenizer.bos_token_id, tokenizer('a')['input_ids'][:1]
        self.begin = first if first == [bos] else []

    def asked(self, text: str, answers: Sequence[str], num_new: int = 0) -> Asked:
        """A question, answers whose log-probabilities are wanted, and room for `num_new` tokens.

        Raises:
            UserError: an answer leaves no room for a question.
        """
        stem = text.rstrip()
        space = text[len(stem) :]
        own, *whole = self._ids([stem, *(f'{stem}{space}{answer}' for answer in answers)])
        ids = [one[len(own) :] for one in whole]
        # without anything before it, the first token of an answer would have no probability
        own = own if own or self.begin else [self.tokenizer.eos_token_id]
        longest = max([num_new, *map(len, ids)])
        room = self.max_length - longest - len(self.begin)
        if room < 1:
            raise UserError(f'--max_length {self.max_length}: an answer of {longest} tokens leaves no room')
        return Asked(self.begin + own[-room:], ids, max(0, len(own) - room))

    def moved(self, text: str) -> str:
        """The white space that is read as the beginning of an answer."""
        return text[len(text.rstrip()) :]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)['input_ids']


def log_probs(engine: Engine, asked: Sequence[Asked], budget: int, progress: Progress = unseen) -> list[list[float]]:
    """The log-probability of each answer given its question: the sum over its tokens, in nats; 0 of one without any.

    What sequences of a micro-batch begin with alike is computed once, so a question costs as much as its own tokens and
    those of its answers.

    Args:
        engine: the policy.
        asked: questions with answers.
        budget: tokens of a micro-batch.
        progress: told of the tokens that are done.
    """
    found = [np.zeros(len(one.answers)) for one in asked]
    units = [(n, some) for n, one in enumerate(asked) for some in _within(one, budget)]
    for run in split_by_tokens([_cost(asked[n], some) for n, some in units], budget):
        places = [(n, answer) for unit in run for n, some in [units[unit]] for answer in some]
        sequences = [_sequence(asked[n].prompt, asked[n].answers[answer]) for n, answer in places]
        batch = pack(sequences).to(engine.device)
        with torch.inference_mode():
            values = response_log_probs(engine, batch).double()
        sums = segment_sum(values, batch.segments, batch.num_sequences).cpu().numpy()
        for (n, answer), value in zip(places, sums, strict=True):
            found[n][answer] = value
        progress(sum(_cost(asked[n], some) for n, some in (units[unit] for unit in run)))
    return [one.tolist() for one in found]


def _within(asked: Asked, budget: int) -> list[list[int]]:
    """The answers that have tokens, by number, in parts that fit in a micro-batch with their question."""
    parts: list[list[int]] = []
    room = 0
    for n, ids in enumerate(asked.answers):
        if not ids:
            continue
        if not parts or len(ids) > room:
            parts.append([])
            room = budget - len(asked.prompt)
        parts[-1].append(n)
        room -= len(ids)
    return parts


def _cost(asked: Asked, answers: Sequence[int]) -> int:
    return len(asked.prompt) + sum(len(asked.answers[n]) for n in answers)


def _sequence(prompt: list[int], answer: list[int]) -> tuple[np.ndarray, np.ndarray]:
    flags = np.arange(len(prompt) + len(answer)) >= len(prompt)
    return np.array(prompt + answer, np.int64), flags
