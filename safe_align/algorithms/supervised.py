"""Training on fixed data: SFT, reward and cost models are this with different functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from safe_align import distributed
from safe_align.algorithms.averaging import Averaged
from safe_align.datasets.mixture import Mixture, build
from safe_align.datasets.packing import Batches, Packed, collate
from safe_align.engine import Engine, OptimizerOptions, Placement
from safe_align.fields import SupervisedFields
from safe_align.handoff import Run, models_of, start_run
from safe_align.logger import Logger
from safe_align.loop import Loss, Round, Schedule, Sum, train
from safe_align.models.adapting import check_start, make_trainable
from safe_align.models.loading import check_length, load_tokenizer
from safe_align.models.quantized import check_4bit
from safe_align.models.saving import Ending
from safe_align.ownership import AVERAGED
from safe_align.placing import make_engine
from safe_align.templates import Template

Function = Callable[[Engine, Packed], tuple[Tensor, str, dict[str, Sum]]]


class Supervised:
    """One engine, and a function that gives the loss of a micro-batch, what it is a mean over, and metrics."""

    steps_per_round = 1

    def __init__(self, engine: Engine, function: Function, averaged: Averaged | None = None) -> None:
        self.engine, self.function, self.averaged = engine, function, averaged
        self.engines = {'model': engine, **({'averaged': averaged} if averaged else {})}

    def collect(self, round_number: int, batch: list[Packed]) -> Round:
        """The batch, with what the function reads of all of it."""
        if self.averaged:
            self.averaged.follow()
        tokens = float(sum(micro.num_tokens for micro in batch)) * distributed.world_size()
        return Round([self._whole(batch)], {}, tokens)

    def update(self, micro: Packed) -> Iterator[tuple[list[Loss], dict[str, Sum]]]:
        """The function's loss, with dropout unless it wants none."""
        self._mode(getattr(self.function, 'dropout', True))
        total, per, metrics = self.function(self.engine, micro.to(self.engine.device))
        yield [Loss(self.engine, total, per)], {'loss': Sum(total, per), **metrics}

    def evaluate(self, batch: list[Packed]) -> Iterator[tuple[Packed, dict[str, Sum]]]:
        """The function's loss and metrics, without dropout."""
        self._mode(False)
        for micro in self._whole(batch):
            total, per, metrics = self.function(self.engine, micro.to(self.engine.device))
            yield micro, {'loss': Sum(total, per), **metrics}

    def _whole(self, batch: list[Packed]) -> list[Packed]:
        if not hasattr(self.function, 'whole'):
            return batch
        self._mode(False)
        return self.function.whole(self.engine, batch, self.averaged)

    def _mode(self, training: bool) -> None:
        if self.engine.module.training != training:
            self.engine.module.train(training)

    def state(self) -> dict[str, Any]:
        """The function's own, if it has any."""
        return self.function.state() if hasattr(self.function, 'state') else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        if hasattr(self.function, 'load_state'):
            self.function.load_state(state)


@dataclass(frozen=True)
class Task:
    """What a supervised stage is: its name, what it makes of which rows, its model and its function."""

    stage: str
    makes: str
    rows: str
    load: Callable[[Any, Any], nn.Module]  # (config, tokenizer)
    function: Function
    record: Callable[[Mixture], dict[str, Any]] = lambda _: {}  # what it adds to the stage's record at the end
    begin: Callable[[Any, Engine, Batches, Logger], None] = lambda *_: None  # before the first step; config comes first
    choose: Callable[[Mixture], Mixture] = lambda data: data  # which rows are trained on
    check: Callable[[Mixture], None] = lambda _: None  # refuses rows, before anything is written
    prepare: Callable[[Mixture, Placement, Logger], Mixture] = lambda data, *_: data  # adds to rows what a model says
    ema_decay: float | None = None  # of an averaged model beside the trained one


def run_supervised(config: SupervisedFields, task: Task) -> int:
    """A whole supervised stage, from its options to its directory."""
    placement = config.place()
    tokenizer = load_tokenizer(config.model_name_or_path, '--model_name_or_path', config.trust_remote_code)
    check_length(config.model_name_or_path, config.max_length, config.trust_remote_code)
    template = Template(tokenizer, config.template)
    rows = partial(build, kind=task.rows, template=template, max_length=config.max_length)
    data, held_out = _data(config, rows)
    data = task.choose(data)
    for given in filter(None, (data, held_out)):
        task.check(given)
    model = _model(config, placement, task, template.tokenizer)
    run = start_run(config, task.stage, models_of(config), data, held_out)
    if run is None:
        return 0
    report_data(run, data, template)
    if held_out:
        run.record['held_out'] = held_out.report
    data = task.prepare(data, placement, run.logger)
    held_out = task.prepare(held_out, placement, run.logger) if held_out else None
    batches = make_batches(config, data)
    following = deepcopy(model) if task.ema_decay is not None else None
    engine = make_engine(model, placement, optimizer_of(config, config.epochs * batches.steps_per_epoch))
    averaged = Averaged(following, engine, task.ema_decay) if following and task.ema_decay is not None else None
    interval = config.eval_interval if config.eval_strategy == 'steps' else None
    train(
        Supervised(engine, task.function, averaged),
        batches,
        run,
        Schedule(config.epochs, config.save_interval, interval),
        make_batches(config, held_out, held_out=True) if held_out else None,
        at_start=partial(task.begin, config, engine, batches, run.logger),
    )
    run.record |= task.record(data)
    ending = Ending(run, config, 'model_name_or_path', collate(data, range(min(len(data), 2))))
    run.finish(task.makes, partial(_save, ending, engine, averaged, template.tokenizer), data.hashes)
    return 0


def optimizer_of(config: Any, steps: int) -> OptimizerOptions:
    """What the options say of the optimizer, for so many steps."""
    return OptimizerOptions(
        config.lr, config.weight_decay, config.lr_scheduler_type, config.lr_warmup_ratio, config.max_grad_norm, steps
    )


def _save(ending: Ending, engine: Engine, averaged: Averaged | None, tokenizer: Any, directory: Path) -> None:
    ending.write(engine, tokenizer, directory)
    if averaged:
        averaged.follow()
        (directory / AVERAGED).mkdir(exist_ok=True)
        ending.write(averaged, tokenizer, directory / AVERAGED)


def _model(config: SupervisedFields, placement: Placement, task: Task, tokenizer: Any) -> nn.Module:
    lora = config.lora()
    if lora:
        check_start(config.model_name_or_path, '--model_name_or_path', lora, config.trust_remote_code)
    if config.load_in_4bit:
        check_4bit(placement)
    model = task.load(config, tokenizer)
    make_trainable(model, lora, config.gradient_checkpointing)
    return model


def _data(config: SupervisedFields, rows: Callable[..., Mixture]) -> tuple[Mixture, Mixture | None]:
    data = rows(config.train_datasets, seed=config.seed, strict=config.strict_data)
    if config.eval_split_ratio:
        return data.split(config.eval_split_ratio, config.seed)
    if config.eval_datasets:
        return data, rows(config.eval_datasets, seed=config.seed, strict=config.strict_data, flag='--eval_datasets')
    return data, None


def make_batches(config: Any, data: Mixture, held_out: bool = False) -> Batches:
    """The steps over `data` that the options ask for."""
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return Batches(
        data, config.per_device_eval_batch_size if held_out else size, config.micro_batch_tokens, config.seed,
        distributed.rank(), distributed.world_size(), shuffle=not held_out,
    )  # fmt: skip


def report_data(run: Run, data: Mixture, template: Template) -> None:
    """Say and record what was used of each data set, and what was left out and why."""
    run.record |= {'datasets': data.report, 'template': template.hash}
    for part in data.report:
        skipped = ', '.join(f'{count} {reason}' for reason, count in part['skipped'].items())
        cut = f'; {part["cut"]} cut to --max_length' if part['cut'] else ''
        left_out = f'; left out: {skipped}' if skipped else ''
        run.logger.say(f'{part["name"]}: {part["used"]} of {part["rows"]} rows{cut}{left_out}')
