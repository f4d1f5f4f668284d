"""The one training loop. It owns rounds, steps, counts, logging, evaluation, saving, resuming and signals.

A *round* collects: nothing for supervised training, rollouts for reinforcement learning. A *step* is an optimizer step;
a round has one or several. A loss is a sum and the name of a count; the loop divides by the count of the whole step,
over micro-batches and processes, so that the result does not depend on how the samples were split.
"""

from __future__ import annotations

import math
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from safe_align import distributed
from safe_align.checkpoint import load_newest, save_state
from safe_align.config import UserError
from safe_align.datasets.packing import Batches, Packed
from safe_align.engine import Engine
from safe_align.handoff import Run

MAX_SKIPPED = 3  # steps in a row that are not finite


class Sum(NamedTuple):
    """A sum over samples, and the count that makes a mean of it: 'rows', 'tokens', or what the batch counts."""

    total: Tensor | float
    per: str


class Loss(NamedTuple):
    """A sum to minimise, for one engine."""

    engine: Engine
    total: Tensor
    per: str


class Micro(Protocol):
    """A micro-batch."""

    @property
    def counts(self) -> Mapping[str, Tensor | float]:
        """What it holds of each thing that a loss or a metric is a mean over."""

    @property
    def rows(self) -> Sequence[int]:
        """Which rows of the data it came from."""


class Round(NamedTuple):
    """The optimizer steps of a round, each a list of micro-batches, what was seen, and tokens a step takes in."""

    steps: Iterable[Sequence[Any]]
    metrics: dict[str, float]
    tokens: float


class Algorithm(Protocol):
    """What differs between ways of training."""

    engines: dict[str, Engine]
    steps_per_round: int

    def collect(self, round_number: int, batch: list[Packed]) -> Round:
        """What to learn from in this round."""

    def update(self, micro: Any) -> Iterator[tuple[list[Loss], dict[str, Sum]]]:
        """The losses of a micro-batch, and its metrics, in parts; a part's graph is gone before the next is made.

        All that an engine has to learn from a micro-batch is in one part.
        """

    def evaluate(self, batch: list[Packed]) -> Iterator[tuple[Packed, dict[str, Sum]]]:
        """Each micro-batch of a held-out batch, with its metrics."""

    def state(self) -> dict[str, Any]:
        """JSON values that a resumed run needs, beside the engines."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


@dataclass(frozen=True)
class Schedule:
    """When things happen, in steps."""

    epochs: int = 1
    save_interval: int | None = None
    eval_interval: int | None = None  # None: at the end of each epoch


class _Stop:
    """Remembers a signal, so that the step in hand ends first; a second one ends the process."""

    def __init__(self) -> None:
        self.signum = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for signum in (signal.SIGTERM, signal.SIGINT):
            self.before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if self.signum:
            raise SystemExit(128 + signum)
        self.signum = signum


def train(
    algorithm: Algorithm, batches: Batches, run: Run, schedule: Schedule, held_out: Batches | None = None,
    after_round: Callable[[int], dict[str, float]] | None = None, at_start: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Train to the end of the last epoch, from the newest checkpoint of this run if there is one.

    `at_start` is called where there is none. What `after_round` says of the number of rounds so far is logged, where it
    says anything.

    Raises:
        UserError: several steps in a row, or all, were not finite, or a checkpoint cannot be written.
        SystemExit: with 143 or 130, after a checkpoint, when the process is told to end.
    """
    with _Stop() as stop:
        rounds = schedule.epochs * batches.steps_per_epoch
        first, step = load_newest(run.directory, algorithm, run.logger.say)
        run.logger.start(step, rounds * algorithm.steps_per_round)
        last_saved, skipped = step, 0
        if at_start and not first:
            at_start()
        if held_out and not first:
            run.logger.log(0, evaluate(algorithm, held_out))
        for number in range(first, rounds):
            before, collected = step, algorithm.collect(number, batches.step(number))
            for micros in collected.steps:
                step += 1
                metrics, finite = take_step(algorithm, micros)
                skipped = 0 if finite else skipped + 1
                if skipped == MAX_SKIPPED or skipped == step == rounds * algorithm.steps_per_round:
                    raise UserError(_not_finite(step, skipped, micros))
                metrics = {**collected.metrics, **metrics, 'train/epoch': (number + 1) / batches.steps_per_epoch}
                run.logger.log(step, {**metrics, 'train/skipped': float(not finite)}, collected.tokens)
            if held_out and _is_due(before, step, number, batches, schedule):
                run.logger.log(step, evaluate(algorithm, held_out))
            if after_round and (found := after_round(number + 1)):
                run.logger.log(step, found)
            signum = distributed.highest_over_ranks(stop.signum)
            if signum or (schedule.save_interval and step - last_saved >= schedule.save_interval):
                _save(algorithm, run, number + 1, step)
                last_saved = step
            if signum:
                run.logger.say(f'told to end; saved at step {step}, and the same command goes on from there')
                raise SystemExit(128 + signum)


def take_step(algorithm: Algorithm, micros: Sequence[Any]) -> tuple[dict[str, float], bool]:
    """One optimizer step of every engine that has a loss; its metrics as means, and whether all of it was finite."""
    counts = _totals([micro.counts for micro in micros])
    sums: dict[str, Any] = defaultdict(float)
    per: dict[str, str] = {}
    engines: dict[int, Engine] = {}
    for number, micro in enumerate(micros):
        last = number == len(micros) - 1
        for losses, metrics in algorithm.update(micro):
            shares: dict[int, Tensor] = {}
            for engine, total, unit in losses:
                engines[id(engine)] = engine
                share = total / max(counts[unit], 1e-12)
                shares[id(engine)] = shares[id(engine)] + share if id(engine) in shares else share
            for key, share in shares.items():
                engines[key].backward(share, last=last)
            for name, (value, unit) in metrics.items():
                sums[name] = sums[name] + (value.detach() if isinstance(value, Tensor) else value)
                per[name] = unit
            del losses, metrics, shares
    rates = {f'{_role(algorithm, engine)}lr': engine.lr for engine in engines.values()}
    norms = {f'{_role(algorithm, engine)}grad_norm': engine.step() for engine in engines.values()}
    means = _means(sums, per, counts)
    finite = all(map(math.isfinite, norms.values()))
    return {f'train/{name}': value for name, value in {**means, **rates, **norms}.items()}, finite


def evaluate(algorithm: Algorithm, held_out: Batches) -> dict[str, float]:
    """Means of the algorithm's metrics over all held-out rows."""
    sums: dict[str, Any] = defaultdict(float)
    per: dict[str, str] = {}
    counted = []
    with torch.no_grad():  # inference mode would spoil what ZeRO 3 gathers
        for micros in held_out.epoch():
            for micro, metrics in algorithm.evaluate(micros):
                for name, (value, unit) in metrics.items():
                    sums[name] = sums[name] + value
                    per[name] = unit
                counted.append(micro.counts)
    means = _means(sums, per, _totals(counted))
    return {f'eval/{name}': value for name, value in means.items()}


def _totals(counts: Sequence[Mapping[str, Tensor | float]]) -> dict[str, float]:
    total: dict[str, Any] = defaultdict(float)
    for one in counts:
        for name, value in one.items():
            total[name] = total[name] + value
    return distributed.sum_over_ranks(total, distributed.local_device())


def _means(sums: Mapping[str, Any], per: Mapping[str, str], counts: Mapping[str, float]) -> dict[str, float]:
    totals = distributed.sum_over_ranks(sums, distributed.local_device())
    return {name: total / counts[per[name]] if counts[per[name]] else math.nan for name, total in totals.items()}


def _role(algorithm: Algorithm, engine: Engine) -> str:
    """'' for what is just the model, else its role and an underscore."""
    (role,) = [role for role, one in algorithm.engines.items() if one is engine]
    return '' if role == 'model' else f'{role}_'


def _is_due(before: int, step: int, number: int, batches: Batches, schedule: Schedule) -> bool:
    if schedule.eval_interval is None:
        return (number + 1) % batches.steps_per_epoch == 0
    return step // schedule.eval_interval > before // schedule.eval_interval  # a round may make no step


def _save(algorithm: Algorithm, run: Run, round_number: int, step: int) -> None:
    try:
        save_state(run.directory, round_number, step, algorithm)
    except OSError as error:
        raise UserError(
            f'--output_dir {run.directory}: the checkpoint of step {step} could not be written: {error.strerror}; '
            'the one before it is as it was'
        ) from error


def _not_finite(step: int, skipped: int, micros: Sequence[Any]) -> str:
    rows = [row for micro in micros for row in micro.rows]
    return (
        f'step {step}: the gradient was not finite for {skipped} step{"s in a row" * (skipped > 1)}; rows of the last: '
        f'{rows[:8]}{"..." if len(rows) > 8 else ""}; try a lower learning rate, or --bf16 False'
    )
