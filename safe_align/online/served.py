"""Responses of a server to the prompts of a run, each written down as it comes, so that none is asked for twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safe_align.config import UserError
from safe_align.laws import Law
from safe_align.online.parts import Parts
from safe_align.online.records import Drawn
from safe_align.online.server import respond
from safe_align.ownership import PARTS
from safe_align.remote.answers import Answer
from safe_align.remote.endpoint import Endpoint

if TYPE_CHECKING:
    from safe_align.online.sample import SampleConfig
    from safe_align.online.sampling_run import Work


def check_served(config: SampleConfig, laws: Sequence[Law]) -> None:
    """Refuse laws that no server draws from, and a server that cannot be asked.

    Raises:
        UserError: it says which.
    """
    if any(law[:2] != (1.0, 0.0) for law in laws):
        raise UserError(
            f'--sampler {config.sampler}: draws from other laws than the policy, which no server does; '
            'use --generation_backend builtin'
        )
    Endpoint(config.server())


class Served:
    """All that a server draws for a run, before the sampler chooses.

    Args:
        work: what there is to do.
    """

    def __init__(self, work: Work) -> None:
        self.work, self.say = work, work.run.logger.say
        folder = work.run.directory / PARTS / 'served'
        self.parts = Parts(folder, self.say, lambda row: (row['prompt_id'], row['sample_id']))
        self.rows = {key: json.loads(line) for key, line in self.parts.found.items()}

    def fetch(self, mine: Sequence[int]) -> None:
        """Ask for what is missing of these prompts, by their numbers.

        Raises:
            UserError: the server failed; what had come by then is kept.
        """
        work, config = self.work, self.work.config
        wanted = [(n, k) for n in range(len(mine)) for k in range(len(work.laws))]
        done = {(n, k) for n, k in wanted if (work.names[mine[n]], k) in self.rows}
        if done:
            self.say(f'{len(done)} of {len(wanted)} responses of the server are there already')
        if len(done) == len(wanted):
            return
        endpoint = Endpoint(config.server())
        endpoint.go_on_from({row['model'] for row in self.rows.values()})
        need = config.server_log_probs == 'required'
        if need and any(law.temperature * config.temperature != 1 for law in work.laws):
            self.say('log-probabilities are as the server gives them; those of vLLM are of temperature 1, unless it '
                     'was started with --logprobs-mode processed_logprobs')  # fmt: skip

        def keep(drawn: Drawn, answer: Answer) -> None:
            row = self._row(work.names[mine[drawn.prompt]], drawn, answer, endpoint)
            self.parts.append([row])
            self.rows[row['prompt_id'], row['sample_id']] = row

        try:
            respond(
                endpoint, work.template, [work.turns[n] for n in mine], work.sampling, [work.keys[n] for n in mine],
                keep, need_log_probs=need, done=done,
            )  # fmt: skip
        except UserError as error:
            raise UserError(f'{error}; {len(self.rows)} responses are kept') from error

    def _row(self, name: str, drawn: Drawn, answer: Answer, endpoint: Endpoint) -> dict[str, Any]:
        return {
            'prompt_id': name, 'sample_id': drawn.sample, 'text': drawn.text, 'ids': drawn.ids,
            'log_probs': drawn.log_probs, 'is_finished': drawn.is_finished, 'model': endpoint.model,
            'refused': sorted(endpoint.refused), 'prompt_tokens': answer.prompt_tokens,
            'completion_tokens': answer.completion_tokens,
        }  # fmt: skip

    def __call__(self, some: Sequence[int]) -> list[Drawn]:
        """The responses to prompts, by their numbers, of all laws."""
        found = [(n, k, self.rows[self.work.names[n], k]) for n in some for k in range(len(self.work.laws))]
        return [Drawn(n, k, row['text'], row['ids'], row['log_probs'], row['is_finished']) for n, k, row in found]

    @property
    def about(self) -> dict[str, Any]:
        """Who drew, and what it refused to know, for the rows of responses."""
        refused = {name for row in self.rows.values() for name in row['refused']}
        models = {row['model'] for row in self.rows.values()}
        return {'model': min(models, default=None), 'api': self.work.config.server_api, 'refused': sorted(refused)}

    def told(self) -> dict[str, Any]:
        """The same, and what was paid for, since the run first started, on all processes."""
        self.rows = {key: json.loads(line) for key, line in self.parts.lines().items()}
        paid = {name: sum(row[name] for row in self.rows.values()) for name in ('prompt_tokens', 'completion_tokens')}
        told = {**self.about, 'answers': len(self.rows), **paid}
        refused = ', '.join(told['refused'])
        self.say(
            f'{told["model"]} gave {told["answers"]} answers: {paid["prompt_tokens"]} tokens in, '
            f'{paid["completion_tokens"]} out'
            + (f'; the server refused {refused}, and drew without' if refused else '')
        )
        return told
