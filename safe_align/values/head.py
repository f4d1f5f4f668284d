"""The head that a new score model starts from: fitted to the last states of its body, before the body moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from safe_align.datasets.packing import Batches, Packed
from safe_align.engine import Engine
from safe_align.logger import Logger
from safe_align.sampling import Progress
from safe_align.values.pairs import PairLoss, ends

PAIRS = 256  # a forward pass over them costs little beside training, and more move the head less and less


def fit_head(engine: Engine, batches: Batches, loss: PairLoss, logger: Logger) -> None:
    """Set the head to its most probable weights given the first pairs of the run, the body being as it is.

    A head drawn at random has the body adapt to a direction that means nothing, and what is noise in it stays in the
    scores of a model that few pairs trained; fitted first, the body has less to unlearn (arXiv:2202.10054).

    A priori the weights are N(0, 1 / s) each, s the states' mean squared distance from their mean, so that scores have
    deviation 1.

    Args:
        engine: a score model.
        batches: the run's steps; those of one process are read, whole, on each.
        loss: the stage's own, minus a log-likelihood.
        logger: shows how far it is.
    """
    micros = replace(batches, batch_size=PAIRS, rank=0, world_size=1).step(0)
    with logger.progress('fitting the head', sum(micro.num_tokens for micro in micros)) as progress:
        states = _last_states(engine, micros, progress)
    spread = torch.cat(states, 1).flatten(0, 1)
    precision = (spread - spread.mean(0)).square().sum(1).mean()
    weight = nn.Parameter(spread.new_zeros(spread.shape[1]))
    optimizer = torch.optim.LBFGS([weight], max_iter=1000, line_search_fn='strong_wolfe')

    def posterior() -> Tensor:
        optimizer.zero_grad()
        total = precision / 2 * weight.square().sum()
        for both, batch in zip(states, micros, strict=True):
            first, second = both @ weight
            losses, _ = loss(first, second, batch, torch.arange(len(first)))
            total = total + (losses * batch.fields['weight']).sum()
        total.backward()
        return total

    optimizer.step(posterior)
    head = engine.module.model.score.weight
    engine.set_values(head, {'weights': weight.detach().to(engine.device, torch.float32)[None]})


@torch.no_grad()
def _last_states(engine: Engine, micros: Sequence[Packed], progress: Progress) -> list[Tensor]:
    """What the head is given at the ends of the pairs' responses: (2, B, hidden) each, in float64."""
    states: list[Tensor] = []
    engine.module.eval()
    handle = engine.module.model.score.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    try:
        for micro in micros:
            batch = micro.to(engine.device)
            engine(batch.tokens, batch.positions, batch.layout, ends(batch).flatten())
            progress(batch.num_tokens)
    finally:
        handle.remove()
    return [one.double().cpu().unflatten(0, (2, -1)) for one in states]
