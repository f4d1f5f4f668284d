"""The stage `annotate` at work: responses are judged in chunks that are written down, then feedback is made of all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_align import distributed
from safe_align.checkpoint import write_json, write_jsonl
from safe_align.config import UserError
from safe_align.engine import Placement
from safe_align.handoff import Run, models_of, start_run
from safe_align.models.scorer import Scorer, load_scorer
from safe_align.online.annotating import (
    Annotator,
    Tools,
    are_models,
    check_annotator,
    check_feedback_type,
    choice_of,
    compares,
    keeps,
    open_annotator,
)
from safe_align.online.feedback import border_of
from safe_align.online.feedback_rows import Judged, Rules, scalar_rows, single_rows
from safe_align.online.parts import Parts
from safe_align.online.records import FEEDBACK, Prompt, read_responses, writer_of
from safe_align.ownership import JUDGEMENTS, PARTS
from safe_align.remote.journal import Journal

if TYPE_CHECKING:
    from safe_align.online.annotate import AnnotateConfig

CHUNK = 64  # responses that models score together before they are written down


def run_annotate(config: AnnotateConfig) -> int:
    """The whole stage."""
    placement = config.place()
    check_annotator(config)
    check_feedback_type(config)
    rules = Rules(config.feedback_type, choice_of(config), compares(config), config.min_gap, config.seed)
    prompts = read_responses(config.responses, lambda text: print(f'annotate: {text}') if distributed.is_main() else 0)
    _check(config, prompts)
    run = start_run(config, 'annotate', {**models_of(config), **_places(config.responses)})
    if run is None:
        return 0
    work = Work(config, rules, prompts)
    parts = Parts(run.directory / PARTS, run.logger.say, lambda row: (row['prompt_id'], row['number']))
    todo = work.left(parts.found)
    if len(todo) < len(prompts):
        run.logger.say(f'{len(prompts) - len(todo)} of {len(prompts)} prompts are annotated already')
    scorer = partial(_open_scorer, config, Placement(bf16=placement.bf16), prompts)
    tools = Tools(config, scorer, partial(Journal, run.directory / JUDGEMENTS, run.logger.say, True), run.logger.say)
    annotator = open_annotator(tools) if todo else None
    with run.logger.progress('annotations', sum(prompt.num_tokens for prompt in todo)) as seen:
        for chunk in work.chunks(todo):
            parts.append(work.judged(annotator, chunk) if annotator else [])
            seen(distributed.world_size() * sum(prompt.num_tokens for prompt in chunk))
    distributed.barrier()
    rows, summary = work.feedback(parts.lines())
    run.record['summary'] = {**summary, **tools.summary}
    run.finish('feedback', partial(_write, rows, run))
    parts.remove()
    return 0


def _places(responses: Sequence[str]) -> dict[str, str]:
    """What was given, by names under which it goes on record."""
    return {'responses' if n == 0 else f'responses_{n + 1}': path for n, path in enumerate(responses)}


def _check(config: AnnotateConfig, prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise UserError(f'--responses {" ".join(config.responses)}: there are no responses')
    if config.feedback_type == 'pairwise' and all(len(prompt.rows) < 2 for prompt in prompts):
        raise UserError(
            f'--responses {" ".join(config.responses)}: one response to each prompt, and a pair takes two; '
            'sample with --num_return_sequences 2 or more, or use --feedback_type scalar or pointwise'
        )


def _open_scorer(config: AnnotateConfig, placement: Placement, prompts: Sequence[Prompt], kind: str) -> Scorer:
    option = f'{kind}_model_name_or_path'
    return load_scorer(
        getattr(config, option), kind, f'--{option}', placement, writer_of(prompts),
        budget=config.micro_batch_tokens, trust_remote_code=config.trust_remote_code,
    )  # fmt: skip


@dataclass
class Work:
    """What there is to judge, and what feedback is made of it."""

    config: AnnotateConfig
    rules: Rules
    prompts: Sequence[Prompt]

    def left(self, done: Any) -> list[Prompt]:
        """The prompts of which not everything is judged; all of them where the annotator keeps what it has said."""
        if keeps(self.config):
            return list(self.prompts)
        return [
            prompt for prompt in self.prompts if any((prompt.name, n) not in done for n in self.rules.numbers(prompt))
        ]

    def chunks(self, todo: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
        """This process's share, a few prompts at a time, as often on every process."""
        rank, processes = distributed.rank(), distributed.world_size()
        most = max((len(prompt.rows) for prompt in todo), default=1)
        if keeps(self.config):
            size = max(1, len(todo))
        elif are_models(self.config):
            size = max(1, CHUNK // most)
        else:
            size = 1  # what it says may have been paid for
        mine = todo[rank::processes]
        for start in range(0, -(-len(todo) // processes), size):
            yield mine[start : start + size]

    def judged(self, annotator: Annotator, chunk: Sequence[Prompt]) -> list[dict[str, Any]]:
        """What the annotator says, a row each."""
        return [
            {'prompt_id': one.prompt.name, 'number': n, **said}
            for one in self.rules.judged(annotator, chunk)
            for n, said in enumerate(one.said)
        ]

    def feedback(self, lines: dict[Any, bytes]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The rows of feedback.jsonl, and what there is to say of them.

        Raises:
            UserError: none is left.
        """
        judged = [
            Judged(prompt, [json.loads(lines[prompt.name, n]) for n in self.rules.numbers(prompt)])
            for prompt in self.prompts
        ]
        dropped = Counter[str]()
        if self.rules.kind == 'scalar':
            rows = [row for one in judged for row in scalar_rows(one)]
        elif self.rules.kind == 'pointwise':
            scores = [score for one in judged for score in one.scores]
            rows = single_rows(judged, border_of(self.config.desirable_from, scores))
        else:
            rows, dropped = self.rules.pairs(judged)
        if not rows:
            why = ', '.join(f'{count} {reason}' for reason, count in dropped.items())
            raise UserError(f'--annotator {self.config.annotator}: no pair is left: {why}')
        rows = [{**row, 'annotator': self.config.annotator} for row in rows]
        return rows, self._summary(judged, rows, dropped)

    def _summary(self, judged: Sequence[Judged], rows: Sequence[Any], dropped: Counter[str]) -> dict[str, Any]:
        told: dict[str, Any] = {
            'prompts': len(judged), 'responses': sum(len(one.prompt.rows) for one in judged), 'rows': len(rows),
            'dropped': dict(dropped),
        }  # fmt: skip
        if not self.rules.is_compared:
            told['mean_score'] = sum(sum(one.scores) for one in judged) / told['responses']
            told['mean_best_score'] = sum(max(one.scores) for one in judged) / len(judged)
        return told


def _write(rows: Sequence[dict[str, Any]], run: Run, directory: Path) -> None:
    if not distributed.is_main():
        return
    summary = run.record['summary']
    write_jsonl(directory / FEEDBACK, rows)
    write_json(directory / 'summary.json', summary)
    dropped = ', '.join(f'{count} {reason}' for reason, count in summary['dropped'].items())
    run.logger.say(
        f'{summary["rows"]} rows of feedback on {summary["responses"]} responses to {summary["prompts"]} prompts'
        + (f'; dropped: {dropped}' if dropped else '')
    )
