"""The trainings that `throughput.py` times, ours and TRL's: useful tokens a second, and memory.

Ours of preferences are the stage as its command runs it, from the first step to the last; its reference has been read
before, by an earlier process. TRL's trainers are as they come.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import machine
import torch
from peer_rows import conversations

from safe_align.algorithms import preference, supervised
from safe_align.config import parse
from safe_align.datasets.mixture import Mixture, build
from safe_align.datasets.packing import Batches
from safe_align.engine import OptimizerOptions, Placement, can_bf16
from safe_align.finetune.loss import sft_loss
from safe_align.loop import take_step
from safe_align.models.loading import load_policy, load_tokenizer
from safe_align.models.score import load_score_model
from safe_align.placing import make_engine
from safe_align.templates import Template
from safe_align.values.losses import ranking_loss
from safe_align.values.scoring import Moments, ScoreLoss

BATCH, LENGTH = 8, 512


class Training(NamedTuple):
    """What is timed, and what is asked.

    Args:
        trainer: of TRL.
        options: of its config.
        loss: of our preference stage; '' for the other stages.
        asked: how many times TRL's speed.
        memory: how much of TRL's memory, if that is asked.
    """

    trainer: str
    options: dict[str, Any]
    loss: str
    asked: float
    memory: float | None = None


class Measured(NamedTuple):
    """Useful tokens a second, and GiB of main memory at the peak."""

    speed: float
    memory: float


TRAININGS = {
    'SFT': Training('SFT', {}, '', 4.0),
    'Reward': Training('Reward', {}, '', 2.5),
    'DPO': Training('DPO', {}, 'dpo', 4.0, 0.6),
    'KTO': Training('KTO', {}, 'kto', 2.5),
    'SimPO': Training('CPO', {'loss_type': 'simpo', 'cpo_alpha': 0.0, 'beta': 2.0, 'simpo_gamma': 1.0}, 'simpo', 2.5),
}
PRECOMPUTED = {'precompute_ref_log_probs': True}


def ours(args: Namespace, name: str, rows: Path) -> Measured:
    """Our training, optimizer and all."""
    return of_preferences(args, name, rows) if TRAININGS[name].loss else of_scores(args, name, rows)


def data_of(args: Namespace, kind: str, rows: Path) -> Mixture:
    """All rows of the file."""
    return build([f'jsonl:1:{rows}'], kind, Template(load_tokenizer(args.model, '--model')), LENGTH, seed=0)


def of_scores(args: Namespace, name: str, rows: Path) -> Measured:
    """SFT or a reward model, after a first step that is not timed."""
    placement = Placement(bf16=can_bf16())
    data = data_of(args, 'supervised' if name == 'SFT' else 'preference', rows)
    options = OptimizerOptions(1e-6, 0.0, 'constant', 0.0, 1.0, 100)
    if name == 'SFT':
        model, function = load_policy(args.model), sft_loss
    else:
        model = load_score_model(args.model, 'reward', '--model', load_tokenizer(args.model, '--model'), fresh=True)
        function = ScoreLoss(lambda a, b, *_: (ranking_loss(a, b), {}), Moments('reward', None), False, False)
    algorithm = supervised.Supervised(make_engine(model, placement, options), function)
    batches = Batches(data, BATCH, args.micro_batch_tokens)
    take_step(algorithm, batches.step(0))
    started = time.perf_counter()
    for step in range(batches.steps_per_epoch):
        take_step(algorithm, batches.step(step))
    return Measured(float(data.lengths.sum()) / (time.perf_counter() - started), machine.peak_memory())


class Ended(Exception):  # noqa: N818  nothing is wrong
    """Ends a stage where its training has ended, or would begin."""


def of_preferences(args: Namespace, name: str, rows: Path, learn: bool = True) -> Measured:
    """`python -m safe_align.algorithms.preference`, its loop timed; without `learn`, only up to there."""
    tokens = float(data_of(args, 'preference', rows).lengths.sum())
    seconds = 1.0
    train = supervised.train

    def timed(*parts: Any, **named: Any) -> None:
        nonlocal seconds
        if learn:
            seconds = machine.seconds_of(lambda: train(*parts, **named))
        raise Ended

    supervised.train = timed
    with tempfile.TemporaryDirectory() as folder:
        options = (
            '--model_name_or_path', args.model, '--datasets', f'jsonl:1:{rows}', '--loss', TRAININGS[name].loss,
            '--output_dir', f'{folder}/out', '--max_length', LENGTH, '--per_device_train_batch_size', BATCH,
            '--micro_batch_tokens', args.micro_batch_tokens, '--log_type', 'none', '--bf16', can_bf16(),
        )  # fmt: skip
        with contextlib.suppress(Ended):
            preference.main(parse(preference.PreferenceConfig, [*map(str, options)]))
    return Measured(tokens / seconds, machine.peak_memory())


def trl(args: Namespace, name: str, rows: Path, more: dict[str, Any]) -> Measured:
    """The same of TRL's trainer; `more` of its options."""
    import trl as peer
    from datasets import Dataset
    from trl.experimental import cpo

    trainer, options, *_ = TRAININGS[name]
    part = cpo if trainer == 'CPO' else peer
    answers = ('completion',) if name == 'SFT' else ('chosen', 'rejected')
    with tempfile.TemporaryDirectory() as folder:
        common = {
            'output_dir': folder, 'per_device_train_batch_size': BATCH, 'num_train_epochs': 1, 'report_to': 'none',
            'max_length': LENGTH, 'save_strategy': 'no', 'learning_rate': 1e-6,
            'use_cpu': not torch.cuda.is_available(),
        }  # fmt: skip
        made = getattr(part, f'{trainer}Trainer')(
            model=args.model, args=getattr(part, f'{trainer}Config')(**common, **options, **more),
            train_dataset=Dataset.from_list(conversations(rows, answers)),
            processing_class=load_tokenizer(args.model, '--model'),
        )  # fmt: skip
        tokens = sum(map(tokens_of, made.train_dataset))
        seconds = made.train().metrics['train_runtime']
    return Measured(tokens / seconds, machine.peak_memory())


def tokens_of(row: dict[str, Any]) -> int:
    """Of a row as TRL's trainers have it: one sequence, or two, which some keep apart from their prompt."""
    if 'chosen_input_ids' in row:
        return len(row['chosen_input_ids']) + len(row['rejected_input_ids'])
    if 'input_ids' in row:
        return len(row['input_ids'])
    prompt = len(row.get('prompt_ids', ()))
    answers = [row[key] for key in ('chosen_ids', 'rejected_ids', 'completion_ids') if key in row]
    return sum(min(prompt + len(answer), LENGTH) for answer in answers)
