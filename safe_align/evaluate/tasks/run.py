"""A run of BIG-bench: tasks to questions, what a policy says of each, scores, and what is written of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_align import distributed
from safe_align.checkpoint import write_json, write_jsonl
from safe_align.config import UserError
from safe_align.datasets.rows import prompt_hash
from safe_align.engine import Engine
from safe_align.evaluate.answers import open_policy
from safe_align.evaluate.fields import POLICY
from safe_align.evaluate.tasks.encoding import Asked, Encoder, log_probs
from safe_align.evaluate.tasks.metrics import Sample, measure
from safe_align.evaluate.tasks.prompts import Question, answer_in, questions
from safe_align.evaluate.tasks.results import Score, render, results, score_of, with_wholes
from safe_align.evaluate.tasks.schema import read
from safe_align.evaluate.tasks.task import Task, find
from safe_align.evaluate.tasks.text import check_installed
from safe_align.generation import Sampling, generate
from safe_align.handoff import Run, models_of, start_run
from safe_align.models.loading import check_kind, check_length, load_tokenizer

if TYPE_CHECKING:
    from safe_align.evaluate.bigbench import BigBenchConfig

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A task with examples, and its questions behind so many solved ones."""

    task: Task
    num_shots: int
    questions: list[Question]


def run_bigbench(config: BigBenchConfig) -> int:
    """The whole stage."""
    config.place()
    check_kind(config.model_name_or_path, 'policy', POLICY, config.trust_remote_code)
    check_length(config.model_name_or_path, config.max_length, config.trust_remote_code)
    tasks = _tasks(config)
    parts = [part for task in tasks.values() for part in _parts(task, config)]
    encoder = _encoder(config)
    asked = [_asked(config, encoder, part) for part in parts]
    run = start_run(config, 'bigbench', models_of(config))
    if run is None:
        return 0
    engine = open_policy(config, (config.model_name_or_path, POLICY))
    rows = [_rows(config, run, engine, encoder, part, own) for part, own in zip(parts, asked, strict=True)]
    scores = {(part.task.name, part.num_shots): _score(part, some) for part, some in zip(parts, rows, strict=True)}
    found = {name: with_wholes(task, scores, config.num_shots) for name, task in tasks.items()}
    summary = _summary(config, encoder, tasks, found)
    for name, some in summary['metrics_left_out'].items():
        run.logger.say(f'{name}: {", ".join(some)} is not computed here')
    run.record |= {'datasets': [_data(part) for part in parts], 'summary': summary}
    if distributed.is_main():
        print(render(config.model_name_or_path, [score for some in found.values() for score in some]))
    model = _model(config, engine, summary['prompts'])
    told = [results(name, some, model) for name, some in found.items()]
    hashes = [prompt_hash([question.input]) for part in parts for question in part.questions]
    run.finish('evaluation', lambda directory: _write(directory, told, summary, rows), hashes)
    return 0


def _tasks(config: BigBenchConfig) -> dict[str, Task]:
    """The tasks by the names they were asked for; a file goes by its folder."""
    paths = {name: find(name, config.task_dir) for name in config.task_name}
    for file in config.task_file:
        name = Path(file).expanduser().resolve().parent.name
        paths[name if name not in paths else file] = Path(file)
    tasks = {name: read(path) for name, path in paths.items()}
    names: dict[str, str] = {}
    for leaf in (leaf for task in tasks.values() for leaf in task.leaves()):
        check_installed(leaf.metrics, leaf.place)
        if leaf.name in names:
            raise UserError(f'{leaf.place}: name: {leaf.name!r} is that of {names[leaf.name]} too')
        names[leaf.name] = leaf.place
    return tasks


def _parts(task: Task, config: BigBenchConfig) -> list[Part]:
    """The questions of a task; parts get equal shares of `max_examples`.

    Raises:
        UserError: a part would have none.
    """
    leaves, most = task.leaves(), config.max_examples
    if most is not None and most < len(leaves):
        raise UserError(f'--max_examples {most}: {task.place} has {len(leaves)} parts')
    share = most and most // len(leaves)
    return [Part(leaf, n, questions(leaf, n, config.seed, share)) for leaf in leaves for n in config.num_shots]


def _encoder(config: BigBenchConfig) -> Encoder:
    tokenizer = load_tokenizer(config.model_name_or_path, POLICY, config.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise UserError(f'{POLICY} {config.model_name_or_path}: its tokenizer has no end-of-sequence token')
    return Encoder(tokenizer, config.max_length)


def _asked(config: BigBenchConfig, encoder: Encoder, part: Part) -> list[Asked]:
    """This process's questions, and the answers whose log-probabilities the metrics need: choices, targets."""
    task, found = part.task, []
    for question in part.questions[distributed.rank() :: distributed.world_size()]:
        choices = [*question.scores] if task.has_choices else []
        targets = question.targets if 'log_likelihood' in task.metrics else []
        room = config.max_new_tokens if task.is_generative else 0
        found.append(encoder.asked(question.input, choices + targets, room))
    return found


def _rows(
    config: BigBenchConfig, run: Run, engine: Engine, encoder: Encoder, part: Part, asked: Sequence[Asked]
) -> list[Row]:  # fmt: skip
    """What the policy says of each question, a row each, the same on every process; each asks its own."""
    task, name = part.task, f'{part.task.name}, {part.num_shots} shots'
    mine = list(range(distributed.rank(), len(part.questions), distributed.world_size()))
    own = [part.questions[n] for n in mine]
    values: list[list[float]] = [[] for _ in own]
    if any(one.answers for one in asked):
        total = sum(len(one.prompt) + sum(map(len, one.answers)) for one in asked)
        with run.logger.progress(name, total) as seen:
            values = log_probs(engine, asked, config.micro_batch_tokens, seen)
    if not all(np.isfinite(value).all() for value in values):
        raise UserError(f'{POLICY} {config.model_name_or_path}: its log-probabilities are not finite')
    texts = _answers(config, run, engine, encoder, asked, mine, name) if task.is_generative else [None] * len(own)
    rows = []
    for n, question, one, numbers, text in zip(mine, own, asked, values, texts, strict=True):
        split = len(question.scores) if task.has_choices else 0
        said = {} if text is None else _said(encoder, task, question, text)
        rows.append({
            'task': task.name, 'num_shots': part.num_shots, 'question': n, **question._asdict(),
            'log_probs': numbers[:split], 'target_log_probs': numbers[split:], 'num_cut': one.num_cut, **said,
        })  # fmt: skip
    return sorted(distributed.gather_over_ranks(rows), key=lambda row: row['question'])


def _answers(
    config: BigBenchConfig, run: Run, engine: Engine, encoder: Encoder, asked: Sequence[Asked], keys: Sequence[int],
    name: str,
) -> list[str]:  # fmt: skip
    """What the policy writes, by the likeliest token at each step."""
    sampling = Sampling(
        config.max_new_tokens, 0.0, seed=config.seed, batch_size=config.generation_batch_size,
        backend=config.generation_backend, max_length=config.max_length,
    )  # fmt: skip
    stop_ids, prompts = [encoder.tokenizer.eos_token_id], [one.prompt for one in asked]
    with (
        run.logger.progress(f'{name}, answers', config.max_new_tokens * len(asked)) as seen,
        engine.placement.compute(),
    ):
        responses = generate(engine.module, prompts, sampling, stop_ids, keys, seen)
    return [encoder.tokenizer.decode(one.ids, skip_special_tokens=True) for one in responses]


def _said(encoder: Encoder, task: Task, question: Question, text: str) -> Row:
    """The text without the white space that ends the question, and the answer in it."""
    text = text.removeprefix(encoder.moved(question.input))
    return {'text': text, 'response': answer_in(text, task)}


def _score(part: Part, rows: Sequence[Row]) -> Score:
    samples = [
        Sample(row['targets'], row['scores'], row['log_probs'], row['target_log_probs'], row.get('response', ''),
               part.task.is_absolute)
        for row in rows
    ]  # fmt: skip
    estimates = {name: one for metric in part.task.metrics for name, one in measure(metric, samples).items()}
    empty = sum(row.get('response') == '' for row in rows)
    counts = {'num_questions': len(rows), 'num_cut': sum(row['num_cut'] > 0 for row in rows), 'num_empty': empty}
    return score_of(part.task, part.num_shots, counts, estimates)


def _summary(
    config: BigBenchConfig, encoder: Encoder, tasks: dict[str, Task], found: dict[str, list[Score]]
) -> dict[str, Any]:  # fmt: skip
    """Scores with intervals, and how the policy was asked."""
    begin = encoder.tokenizer.convert_ids_to_tokens(encoder.begin)
    left_out = {leaf.name: leaf.left_out for task in tasks.values() for leaf in task.leaves() if leaf.left_out}
    return {
        'policy': config.model_name_or_path, 'seed': config.seed, 'max_new_tokens': config.max_new_tokens,
        'prompts': {'template': None, 'begin': begin, 'encoding': 'question and answer as one text'},
        'metrics_left_out': left_out,
        'tasks': {name: [score.told() for score in scores] for name, scores in found.items()},
    }  # fmt: skip


def _data(part: Part) -> dict[str, Any]:
    """What was asked, for the record."""
    digest = hashlib.blake2b(repr(part.task).encode(), digest_size=8).hexdigest()
    return {
        'name': f'{part.task.name}, {part.num_shots} shots', 'rows': len(part.task.examples),
        'used': len(part.questions), 'fingerprint': digest,
    }  # fmt: skip


def _model(config: BigBenchConfig, engine: Engine, prompts: dict[str, Any]) -> dict[str, Any]:
    """The `ModelData` of the `bigbench` package; nothing is known of the training."""
    module = engine.module
    total = sum(parameter.numel() for parameter in module.parameters())
    inner = total - module.get_input_embeddings().weight.numel()
    head = module.get_output_embeddings()
    if head is not None and head.weight is not module.get_input_embeddings().weight:
        inner -= head.weight.numel()
    return {
        'model_family': module.config.model_type, 'model_name': Path(config.model_name_or_path).name,
        'total_params': total, 'non_embedding_params': inner, 'flop_matched_non_embedding_params': inner,
        'training_batch_size': 0, 'training_steps': 0, 'description': config.model_name_or_path,
        'decoding_params': {'temperature': 0, 'max_new_tokens': config.max_new_tokens},
        'additional_details': json.dumps(prompts),
    }  # fmt: skip


def _write(directory: Path, told: list[dict[str, Any]], summary: dict[str, Any], rows: Sequence[list[Row]]) -> None:
    if not distributed.is_main():
        return
    write_jsonl(directory / 'samples.jsonl', chain.from_iterable(rows))
    write_json(directory / 'results.json', told)
    write_json(directory / 'summary.json', summary)
