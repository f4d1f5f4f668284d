"""Preference learning from the policy's own responses: each round draws, annotates, and learns from what was said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from safe_align import distributed
from safe_align.algorithms.averaging import Averaged
from safe_align.algorithms.policy_step import rows_of
from safe_align.algorithms.preference_fields import kind_of_rows
from safe_align.algorithms.preference_loss import PreferenceLoss
from safe_align.algorithms.reference_log_probs import referenced
from safe_align.algorithms.rollouts import Rollouts, Sampled, length_metrics
from safe_align.algorithms.supervised import Supervised
from safe_align.config import UserError
from safe_align.datasets.beside import mismatched
from safe_align.datasets.mixture import Mixture
from safe_align.datasets.packing import Packed, collate, even_runs
from safe_align.datasets.raw.jsonl import sample_of
from safe_align.datasets.tokenized import table_of, usable
from safe_align.engine import Engine
from safe_align.loop import Loss, Round, Sum
from safe_align.models.policy import divergences_along
from safe_align.online.critique import Critique
from safe_align.online.feedback_rows import Row
from safe_align.online.records import Drawn, Prompt, row_of
from safe_align.templates import Template


@dataclass(frozen=True)
class OnlineOptions:
    """The flags of the same names."""

    batch_size: int
    micro_batch_tokens: int
    update_iters: int
    max_length: int
    renew_reference: int | None


class OnlinePreference:
    """A policy, what it is compared with, and who says which of its responses are better.

    Args:
        learner: the policy and its loss, which is a `PreferenceLoss`.
        reference: the other model of the loss, or of the laws that responses are drawn from; an `Averaged` one is
            renewed.
        rollouts: draws the responses of a round.
        held_out: draws responses to held-out prompts.
        critique: says what is better.
        options: see there.
    """

    def __init__(
        self, learner: Supervised, reference: Engine | None, rollouts: Rollouts, held_out: Rollouts | None,
        critique: Critique, options: OnlineOptions,
    ) -> None:  # fmt: skip
        self.learner, self.reference, self.rollouts, self.held_out = learner, reference, rollouts, held_out
        self.critique, self.options = critique, options
        self.engines = dict(learner.engines)
        if isinstance(reference, Averaged):
            self.engines['reference'] = reference
        self.steps_per_round = 0  # set by the stage, which knows the size of a round

    @property
    def loss(self) -> PreferenceLoss:
        """Of the learner."""
        assert isinstance(self.learner.function, PreferenceLoss)
        return self.learner.function

    @property
    def template(self) -> Template:
        """Of the policy."""
        return self.rollouts.template

    def collect(self, round_number: int, batch: list[Packed]) -> Round:
        """Draw responses under the policy as it is, have them judged, and make the steps of what was said."""
        renew = self.options.renew_reference
        if renew and round_number % renew == 0 and isinstance(self.reference, Averaged):
            self.reference.follow()
        sampled = self.rollouts.sample(rows_of(batch), round_number)
        prompts = prompts_of(sampled, self.template)
        rows, metrics = self.critique(prompts)
        data, count = self.table(rows, prompts[0])
        lost = float(len(rows) - count) if self.is_paired or not count else 0.0
        lost = distributed.sum_over_ranks({'lost': lost})['lost']
        metrics['train/feedback_rows'] -= lost
        metrics['train/feedback_dropped'] += lost
        steps = self._steps(data, count)
        tokens = sum(micro.num_tokens for step in steps for micro in step) * distributed.world_size()
        return Round(
            self._learnt_from(round_number, steps), {**metrics, **length_metrics(sampled)},
            tokens / max(len(steps), 1),
        )  # fmt: skip

    @property
    def is_paired(self) -> bool:
        """Whether a row of feedback makes a row of data."""
        return self.loss.needs.rows != 'answers'

    def table(self, rows: Sequence[Row], prompt: Prompt) -> tuple[Mixture, int]:
        """The rows as the preference stage would read them from a file, and how many there are.

        Where there are none, there is one that counts for nothing, an answer or a pair to `prompt`.
        """
        kind = kind_of_rows(self.loss.needs, 'better')
        found, _, _ = usable(map(_sample, rows), kind, self.template, self.options.max_length)
        count = len(found)
        if not count:
            stand_in = _stand_in(prompt, self.template, self.is_paired)
            found, _, _ = usable([_sample(stand_in)], kind, self.template, self.options.max_length)
        part = table_of(found, {})
        data = Mixture([part], np.stack([np.zeros(len(found), np.int64), np.arange(len(found))], 1), [])
        if 'kl' not in self.loss.needs.names:
            return data, count
        if len(np.unique(data.hashes)) < 2:  # without an answer to another prompt they count for nothing
            return Mixture(data.parts, data.rows, [], data), 0
        return Mixture(data.parts, data.rows, [], mismatched(data, self.options.max_length)), count

    def _steps(self, data: Mixture, count: int) -> list[list[Packed]]:
        """Micro-batches with what the reference says, as many steps and micro-batches on every process."""
        size, lengths, steps = self.options.batch_size, data.lengths, []
        for start in range(0, size * distributed.highest_over_ranks(-(-count // size)), size):
            own = range(start, min(start + size, count))
            runs = even_runs([int(lengths[n]) for n in own], self.options.micro_batch_tokens)
            micros = [
                collate(data, [own[n] for n in run]) if run else collate(data, [0], weights=[0.0]) for run in runs
            ]
            device = self.learner.engine.device
            steps.append([self._referenced(micro.to(device)) for micro in micros])
        return steps

    def _referenced(self, micro: Packed) -> Packed:
        if not self.loss.reference:
            return micro
        assert self.reference is not None
        return referenced(micro, self.loss.needs, self.reference)

    def _learnt_from(self, round_number: int, steps: Sequence[list[Packed]]) -> Iterator[Sequence[Any]]:
        """Each step when its turn comes: what a loss reads of all of it is read under the policy as it is then."""
        for _ in range(self.options.update_iters):
            for step in steps:
                yield from self.learner.collect(round_number, step).steps

    def update(self, micro: Any) -> Iterator[tuple[list[Loss], dict[str, Sum]]]:
        """The loss, as the preference stage has it."""
        return self.learner.update(micro)

    def evaluate(self, batch: list[Packed]) -> Iterator[tuple[Packed, dict[str, Sum]]]:
        """Scores of responses to held-out prompts, and how far the policy is from the reference on them.

        They are drawn with the same random numbers each time.
        """
        assert self.held_out is not None
        for micro in batch:
            sampled = self.held_out.sample(micro.rows, 0)
            share = micro.fields['weight'].double()
            scores = torch.tensor(self.critique.annotator.scores([one.conversation for one in sampled])['score'])
            found = {'score': Sum((scores * share).sum(), 'rows')}
            if self.reference is not None:
                kl, _ = divergences_along(
                    self.learner.engine, self.reference, [one.conversation.sequence for one in sampled],
                    self.rollouts.sampling.temperature, self.options.micro_batch_tokens,
                )  # fmt: skip
                found['kl'] = Sum((kl.cpu() * share).sum(), 'rows')
            yield micro, found

    def state(self) -> dict[str, Any]:
        """The loss's own."""
        return self.learner.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        self.learner.load_state(state)


def prompts_of(sampled: Sequence[Sampled], template: Template) -> list[Prompt]:
    """Responses as the rows that they would be in a file, prompt by prompt."""
    about = {'tokenizer': template.fingerprint, 'template': template.hash}
    found = []
    for _, same in groupby(sampled, key=lambda one: one.row):
        some = list(same)
        turns = some[0].conversation.turns
        rows = [
            row_of(turns, Drawn(0, n, one.conversation.text, one.response.ids, one.response.log_probs,
                                one.response.is_finished), n, about)
            for n, one in enumerate(some)
        ]  # fmt: skip
        found.append(Prompt(rows[0]['prompt_id'], turns, rows))
    return found


def _sample(row: Row) -> Any:
    try:
        return sample_of('feedback', row)
    except UserError as error:
        raise UserError(f'--annotator {row.get("annotator", "")}: {error}') from error


def _stand_in(prompt: Prompt, template: Template, is_paired: bool) -> Row:
    """Feedback that nobody gave, of weight 0, so that this process takes its part in what all do together."""
    about = {'prompt': prompt.rows[0]['prompt'], 'tokenizer': template.fingerprint, 'weight': 0.0}
    if not is_paired:
        return {**about, 'response': 'a', 'label': True, 'token_ids': template.response('a'), 'log_prob': 0.0}
    sides = {'chosen': 'a', 'rejected': 'b'}
    return {
        **about, **sides, 'margin': 1.0,
        **{f'{side}_token_ids': template.response(text) for side, text in sides.items()},
        **{f'{side}_log_prob': 0.0 for side in sides},
    }  # fmt: skip
