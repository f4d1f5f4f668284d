"""What the reward and the cost stage share: scores of pairs, their running moments, their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from safe_align import distributed
from safe_align.algorithms.supervised import Task, run_supervised
from safe_align.datasets.mixture import Mixture
from safe_align.datasets.packing import Batches, Packed
from safe_align.engine import Engine
from safe_align.logger import Logger
from safe_align.loop import Sum
from safe_align.models.loading import is_score_model
from safe_align.models.score import Normalizer, load_score_model
from safe_align.values.fields import ScoreFields
from safe_align.values.head import fit_head
from safe_align.values.pairs import PairLoss, pair_scores

Kind = Literal['reward', 'cost']


class Moments:
    """Running mean and variance of the scores seen in training, which end up as the model's normaliser.

    Args:
        kind: 'reward' or 'cost'.
        momentum: weight, a step, of what was before, corrected for the start; None: every score counts alike.
    """

    def __init__(self, kind: Kind, momentum: float | None) -> None:
        self.kind, self.momentum = kind, momentum
        self.sums = torch.zeros(3, dtype=torch.float64)  # weight, scores, squares
        self.step = torch.zeros_like(self.sums)  # of the step in hand, whatever micro-batches it is in

    def see(self, *scores: Tensor) -> None:
        """Take in the scores of a micro-batch of all processes; those not finite belong to a step that is skipped."""
        values = torch.cat(scores).detach().double()
        values = values[values.isfinite()]
        sums = {'weight': values.new_tensor(len(values)), 'scores': values.sum(), 'squares': values.square().sum()}
        self.step += torch.tensor([*distributed.sum_over_ranks(sums, values.device).values()], dtype=torch.float64)

    def _end_step(self) -> None:
        if self.momentum is not None and self.step[0]:
            self.step *= (1 - self.momentum) / self.step[0]
            self.sums *= self.momentum
        self.sums += self.step
        self.step.zero_()

    def normalizer(self) -> Normalizer:
        """Shift and scale that bring these scores to mean 0 and deviation 1; asked for between steps."""
        self._end_step()
        weight, total, squares = self.sums.tolist()
        if not weight:
            return Normalizer(kind=self.kind)
        mean = total / weight
        return Normalizer(mean, max(squares / weight - mean**2, 0.0) ** 0.5, self.kind)

    def state(self) -> dict[str, Any]:
        """JSON values."""
        self._end_step()
        return {'sums': self.sums.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        self.sums = torch.tensor(state['sums'], dtype=torch.float64)

    def record(self) -> dict[str, Any]:
        """What the stage's record says of the scores' scale and sign."""
        return {
            'normalizer': asdict(self.normalizer()),
            'score_sign': 'higher is ' + ('better' if self.kind == 'reward' else 'less safe'),
        }


@dataclass
class ScoreLoss:
    """Scores the pairs of a batch, asks `loss` for each pair's loss and measures, and keeps the scores' moments.

    With `normalize` the loss sees scores on the scale of the steps before, so that micro-batches change nothing.
    """

    loss: PairLoss
    moments: Moments
    token_wise: bool
    normalize: bool

    def whole(self, _: Engine, batch: list[Packed], __: Any = None) -> list[Packed]:
        """The micro-batches of a step as they are; the scale that they see is that of the steps before."""
        self.scale = self.moments.normalizer()
        return batch

    def __call__(self, engine: Engine, batch: Packed) -> tuple[Tensor, str, dict[str, Sum]]:
        """The loss summed over pairs; token-wise, each pair's is a mean over its positions."""
        first, second, pairs = pair_scores(engine, batch, self.token_wise)
        if engine.module.training:
            counts = batch.fields['weight'][pairs] > 0  # rows of weight 0 fill up a process's share
            self.moments.see(first[counts], second[counts])
        if self.normalize:
            first, second = self.scale(first), self.scale(second)
        losses, measures = self.loss(first, second, batch, pairs)
        share = batch.fields['weight'][pairs] / torch.bincount(pairs)[pairs]
        return (losses * share).sum(), 'rows', {name: Sum((v * share).sum(), 'rows') for name, v in measures.items()}

    def state(self) -> dict[str, Any]:
        """The moments' state."""
        return self.moments.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """As `state` gave it."""
        self.moments.load_state(state)


def run_score_stage(
    config: ScoreFields, kind: Kind, rows: str, loss: PairLoss, record: Callable[[Mixture], dict[str, Any]]
) -> int:
    """The reward or the cost stage, which differ in their rows and their loss."""
    exponential = config.normalizer_type == 'ExponentialMovingAverage'
    momentum = (0.9 if config.normalizer_momentum is None else config.normalizer_momentum) if exponential else None
    moments = Moments(kind, momentum)
    function = ScoreLoss(loss, moments, config.loss_type == 'token-wise', config.normalize_score_during_training)
    load = partial(_load, kind)
    return run_supervised(
        config,
        Task(
            kind, kind, rows, load, function, lambda data: {**moments.record(), **record(data)}, partial(_begin, loss)
        ),
    )


def _load(kind: Kind, config: ScoreFields, tokenizer: Any) -> Any:
    return load_score_model(
        config.model_name_or_path, kind, '--model_name_or_path', tokenizer, fresh=True,
        in_4bit=config.load_in_4bit, trust_remote_code=config.trust_remote_code,
    )  # fmt: skip


def _begin(loss: PairLoss, config: ScoreFields, engine: Engine, batches: Batches, logger: Logger) -> None:
    if not is_score_model(config.model_name_or_path, '--model_name_or_path', config.trust_remote_code):
        fit_head(engine, batches, loss, logger)
