"""Looks at a policy in training: do its responses to held-out prompts show that it keeps its thresholds?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_align import distributed
from safe_align.algorithms.rollouts import Rollouts
from safe_align.bounds import Array
from safe_align.config import UserError
from safe_align.datasets.mixture import Mixture
from safe_align.engine import Engine
from safe_align.evaluate.certification.lineage import check_new, trace
from safe_align.guarantees import EProcess
from safe_align.models.scorer import Scorer

if TYPE_CHECKING:
    from safe_align.algorithms.rl_stage import Workshop


def level_of(look: int, delta: float) -> float:
    """delta_k = 6 delta / (pi^2 k^2) for look k = 1, 2, ...: together they are delta, however many looks there are."""
    return 6 * delta / (math.pi * look) ** 2


class Gate:
    """The anytime gate: after every `every` rounds, evidence that the policy as it is then keeps its thresholds.

    Look k is at policy k, and its e-process starts at 1: policies of several looks have several mean costs, and a bet
    that ran on over them would refute no more than that *all* of them are unsafe. H_k says that the mean cost of policy
    k is above the threshold; E_k refutes it. Two claims are logged for each cost:

    - `crossed`: E_k came to 1 / delta in this look. It is about one look that was chosen beforehand: if H_k is true, it
      happens with probability delta at most (Ville).
    - `established`: E_k came to 1 / delta_k, delta_k = 6 delta / (pi^2 k^2). With probability 1 - delta none of all the
      looks of the run establishes what is false, since the delta_k add up to delta. So training may be stopped, or a
      checkpoint be taken, at any look that does.

    All looks share their prompts: a union bound takes any dependence between looks, as long as no look has a hand in
    training. Nothing of it does here. Whoever changes options after a look has used these prompts; so has whoever
    chooses a policy by its looks: the run's `prompts.hashes` has them, so the safety test takes others. Costs outside
    [low, high] are cut, and both claims are about the cost that is cut. Several costs are claims each by itself: for
    'all of them keep their thresholds' all must be established, with no further correction.

    Nothing is remembered from look to look; k is the number of rounds over `every`, so a resumed run says the same.

    Args:
        rollouts: draws one response a prompt.
        scorers: cost models by name, 'cost' or 'cost_1' and so on.
        thresholds: of each, in its unit.
        limits: least and largest cost.
        delta: see above.
        every: rounds between looks.
    """

    def __init__(
        self, rollouts: Rollouts, scorers: Mapping[str, Scorer], thresholds: Iterable[float],
        limits: tuple[float, float], delta: float, every: int,
    ) -> None:  # fmt: skip
        self.rollouts, self.scorers, self.limits, self.delta, self.every = rollouts, scorers, limits, delta, every
        self.thresholds = list(thresholds)

    def __call__(self, rounds: int) -> dict[str, float]:
        """What there is to log after so many rounds; nothing where no look is due."""
        look, rest = divmod(rounds, self.every)
        if rest:
            return {}
        level = level_of(look, self.delta)
        metrics = {'certify/look': float(look), 'certify/level': level}
        for name, threshold, costs in zip(self.scorers, self.thresholds, self._costs(), strict=True):
            process = EProcess(threshold, *self.limits, level)
            process.update(np.clip(costs, *self.limits))
            suffix = name.removeprefix('cost')
            metrics |= {
                f'certify/e_value{suffix}': process.value,
                f'certify/crossed{suffix}': float(process.p_value <= self.delta),
                f'certify/established{suffix}': float(process.established),
                f'certify/mean_cost{suffix}': float(costs.mean()),
            }  # fmt: skip
        return metrics

    def _costs(self) -> Array:
        """A row a cost model, one number a prompt in the order of the data, the same on every process: (m, n)."""
        num, rank, step = len(self.rollouts.turns), distributed.rank(), distributed.world_size()
        rows = list(range(rank, num, step)) or [0]  # one that counts once: every process calls the models
        conversations = [one.conversation for one in self.rollouts.sample(rows, 0)]
        scores = [scorer(conversations).tolist() for scorer in self.scorers.values()]
        found: dict[int, Any] = dict(
            distributed.gather_over_ranks([*zip(rows, zip(*scores, strict=True), strict=True)])
        )
        return np.array([found[row] for row in range(num)]).T


def gate_prompts(workshop: Workshop, trained_on: Iterable[np.ndarray]) -> Mixture | None:
    """The prompts of --certify_datasets, proved to be new; None without --certify_every.

    Args:
        workshop: of the stage.
        trained_on: hashes of the prompts that this run trains on, (n,) uint64 each.

    Raises:
        UserError: some were trained on, here or by a model that this run starts from; or they are too few.
    """
    config: Any = workshop.config
    if getattr(config, 'certify_every', None) is None:
        return None
    prompts = workshop.prompts(config.certify_datasets, '--certify_datasets')
    old = np.isin(prompts.hashes, np.concatenate([*trained_on])).sum()
    if old:
        raise UserError(f'--certify_datasets: {old} of {len(prompts)} prompts are among those that this run trains on')
    costs = [('--cost_model_name_or_path', path) for path in workshop.models('cost')]
    try:
        check_new(trace([('--actor_model_name_or_path', config.actor_model_name_or_path), *costs]), prompts.hashes)
    except UserError as error:
        raise UserError(f'--certify_datasets: {error}') from None
    low, high = config.certify_range
    for threshold in config.threshold:
        best = EProcess(threshold, low, high, level_of(1, config.certify_delta))
        best.update(np.full(len(prompts), low))
        if not best.established:
            raise UserError(
                f'--certify_datasets: {len(prompts)} prompts are too few: with the lowest cost on each the e-value '
                f'would be {best.value:.4g}, and {1 / best.delta:.4g} is asked for at the first look'
            )
    return prompts


def make_gate(workshop: Workshop, policy: Engine, prompts: Mixture | None) -> Gate | None:
    """The gate of a stage, if it has one."""
    config: Any = workshop.config
    if prompts is None:
        return None
    names = workshop.cost_names()
    thresholds = config.threshold * (len(names) if len(config.threshold) == 1 else 1)
    scorers = {name: workshop.scorer('cost', number) for number, name in enumerate(names)}
    rollouts = workshop.rollouts(policy, prompts, 1)
    return Gate(rollouts, scorers, thresholds, tuple(config.certify_range), config.certify_delta, config.certify_every)
