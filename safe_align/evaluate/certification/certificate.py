"""A certificate of safety: the claim, the costs it rests on, the bound, the verdict; pure, so that anyone can redo it.

The file is JSON in one fixed form with a hash of its own content, so that any byte that changes is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from safe_align import plugins
from safe_align.bounds import Array, column
from safe_align.config import UserError, nearest
from safe_align.guarantees import cluster_means

BOUNDS = 'safe_align.bounds'
CERTIFIED, NOT_CERTIFIED = 'certified', 'no solution found'
EXIT = {CERTIFIED: 0, NOT_CERTIFIED: 3}
FORMAT, SEAL = 2, 'sha256'
MOST = 10**7  # prompts, in the search for how many would do


def bound_names() -> list[str]:
    """The bounds that a certificate may name; the plain mean has no margin, and certifies nothing."""
    return [name for name in plugins.names(BOUNDS) if name != 'mean']


@dataclass(frozen=True)
class Claim:
    """What is to be certified of one cost, and how: with probability 1 - delta it is at most the threshold.

    Args:
        kind: 'unsafe_rate', of responses with a cost above 0; or 'mean_cost'.
        threshold: a rate in (0, 1), or a cost.
        delta: probability that a policy whose truth is above the threshold is certified all the same.
        bound: name in `safe_align.bounds`, or of a `--plugin` file that is one.
        low: least cost there can be; of a rate, 0; None: unknown.
        high: largest cost there can be; of a rate, 1; None: unknown.
        clip_costs: costs outside [low, high] are cut to it, and the claim is of these.
        assume_normal: the user takes the mean cost to be normally distributed.
    """

    kind: Literal['unsafe_rate', 'mean_cost']
    threshold: float
    delta: float
    bound: str
    low: float | None
    high: float | None
    clip_costs: bool = False
    assume_normal: bool = False

    @property
    def rule(self) -> ModuleType:
        """The bound's module."""
        return plugins.load(BOUNDS, self.bound)

    @property
    def is_anytime(self) -> bool:
        """Whether costs may be looked at more than once."""
        return getattr(self.rule, 'ANYTIME', False)

    @property
    def limits(self) -> tuple[float, float]:
        """Least and largest cost; infinite where unknown."""
        return (-math.inf if self.low is None else self.low, math.inf if self.high is None else self.high)

    @property
    def bound_file(self) -> dict[str, str] | None:
        """Name and hash of the user's own file that the bound is; None of a bound of the house."""
        return plugins.own_file(BOUNDS, self.bound)

    def upper_bound(self, values: ArrayLike) -> float:
        """The bound of one number a prompt, (n,).

        Raises:
            UserError: a bound of the user's own failed, or gave no finite number.
        """
        low, high = self.limits
        try:
            value = float(self.rule.upper_bound(values, delta=self.delta, low=low, high=high))
        except Exception as error:
            if isinstance(error, UserError) or self.bound_file is None:
                raise
            raise UserError(f'--bound {self.bound}: {type(error).__name__}: {error}') from error
        if not math.isfinite(value):
            raise UserError(f'--bound {self.bound}: gave {value}, where a finite number was expected')
        return value

    def check(self, samples: int) -> None:
        """Refuse what cannot be claimed.

        Raises:
            UserError: it names the flag.
        """
        if not 0 < self.delta < 1:
            raise UserError(f'--delta {self.delta}: expected a number between 0 and 1, both excluded')
        if self.bound not in (known := bound_names()):
            why = ': has no margin, and certifies nothing' if self.bound == 'mean' else nearest(self.bound, known)
            raise UserError(f'--bound {self.bound}{why}; expected one of {", ".join(known)}')
        (self._check_rate if self.kind == 'unsafe_rate' else self._check_mean)(samples)
        low, high = self.limits
        if not low < self.threshold < high:
            raise UserError(f'--threshold {self.threshold}: expected a number between {low:g} and {high:g}')

    def _check_rate(self, samples: int) -> None:
        if self.rule.TARGET != 'mean':
            raise UserError(f'--bound {self.bound}: is of the worst costs, and a rate has none; take --claim mean_cost')
        if not self.rule.FINITE_SAMPLE:
            raise UserError(f'--bound {self.bound}: a rate of rare harms is not normal; clopper_pearson is exact')
        if self.bound == 'clopper_pearson' and samples > 1:
            raise UserError(
                f'--bound clopper_pearson: takes one response a prompt; with --samples_per_prompt {samples} '
                'the unit is the mean over a prompt, for which betting holds'
            )

    def _check_mean(self, samples: int) -> None:
        if not self.rule.FINITE_SAMPLE and not self.assume_normal:
            raise UserError(f'--bound {self.bound}: fails for rare harms; --assume_normal takes that on you')
        if self.rule.FINITE_SAMPLE and self.assume_normal:
            raise UserError(f'--assume_normal: --bound {self.bound} assumes no such thing; student_t does')
        if self.bound == 'clopper_pearson':
            raise UserError('--bound clopper_pearson: is for the rate of unsafe responses; mean costs take betting')
        if self.low is None or self.high is None:
            if self.rule.NEEDS_RANGE or self.clip_costs:
                raise UserError('--range: give the least and the largest cost that there can be, or --bound student_t')
        elif not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise UserError(f'--range {self.low} {self.high}: expected two finite numbers, the lower first')

    def check_enough(self, num_prompts: int, of_what: str = '') -> None:
        """Refuse a test that could not pass whatever the costs, before it spends its prompts.

        Args:
            num_prompts: how many there are.
            of_what: which ones, for the message.

        Raises:
            UserError: it says how many prompts are needed.
        """
        self.check_least(num_prompts, of_what)
        if self.low is None or (best := self.best(num_prompts)) <= self.threshold:
            return
        needed = self.rule.MIN_COSTS
        while needed < MOST and self.best(needed) > self.threshold:
            needed *= 2
        below = needed // 2
        while needed - below > 1 and needed < MOST:
            middle = (below + needed) // 2
            below, needed = (below, middle) if self.best(middle) <= self.threshold else (middle, needed)
        more = f'at least {needed} are needed' if needed < MOST else 'widen --threshold or --delta'
        raise UserError(
            f'{num_prompts} prompts{of_what} are too few for --bound {self.bound}: with the lowest cost on each of '
            f'them it would be {best:.6g}, above --threshold {self.threshold:g}; {more}'
        )

    def check_least(self, num_prompts: int, of_what: str) -> None:
        """Refuse fewer prompts than the bound takes.

        Raises:
            UserError: it says how many it takes.
        """
        least = self.rule.MIN_COSTS
        if num_prompts < least:
            raise UserError(
                f'{num_prompts} prompt(s){of_what} are too few for --bound {self.bound}; it takes {least} or more'
            )

    def best(self, num_prompts: int) -> float:
        """The bound with the lowest cost on each prompt."""
        return self.upper_bound(np.full(num_prompts, self.limits[0]))

    def values(self, prompts: Sequence[str], costs: ArrayLike) -> tuple[Array, int]:
        """One number a prompt, from one cost a response, and how many costs were cut: N names, (N,) -> (P,), count.

        Raises:
            UserError: a cost that is no finite number, or outside the range.
        """
        given = column(costs)
        if self.kind == 'unsafe_rate':
            return cluster_means(given > 0, prompts), 0
        low, high = self.limits
        outside = (given < low) | (given > high)
        if outside.any() and not self.clip_costs:
            raise UserError(
                f'--range {low:g} {high:g}: {outside.sum()} of {len(given)} costs are outside, the first of them '
                f'{given[outside][0]:g}; --clip_costs cuts them, and certifies the cost that is cut'
            )
        return cluster_means(np.clip(given, low, high), prompts), int(outside.sum())


def certify(claim: Claim, prompts: Sequence[str], costs: ArrayLike) -> dict[str, Any]:
    """The part of a certificate that is of one cost: the claim, one number a prompt, the bound, and whether it holds.

    Args:
        claim: what is to hold.
        prompts: N names, one a response.
        costs: (N,), one a response, in an order fixed beforehand.

    Raises:
        UserError: a cost that is no finite number, or outside the range.
    """
    values, clipped = claim.values(prompts, costs)
    value = claim.upper_bound(values)
    return {
        'claim': asdict(claim), 'bound_file': claim.bound_file, 'assumes': claim.rule.ASSUMES,
        'target': claim.rule.TARGET, 'anytime': claim.is_anytime, 'costs': values.tolist(),
        'mean': float(values.mean()), 'num_unsafe': int((column(costs) > 0).sum()), 'num_clipped': clipped,
        'value': value, 'holds': value <= claim.threshold,
    }  # fmt: skip


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a hash of it."""
    return {**content, SEAL: hashlib.sha256(canonical(content).encode()).hexdigest()}


def canonical(content: Mapping[str, Any]) -> str:
    """The one text of this content."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + '\n'


def read(text: bytes) -> dict[str, Any]:
    """The content of a certificate's file, without the hash.

    Raises:
        UserError: it is not, byte for byte, what was written.
    """
    try:
        content = json.loads(text.decode())
        told = content.pop(SEAL)
        whole = told == seal(content)[SEAL] and canonical(seal(content)).encode() == text
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise UserError('its bytes are not those that were written')
    if content.get('format') != FORMAT:
        raise UserError(f'format {content.get("format")}, where {FORMAT} was expected')
    return content


def hash_of_set(prompts: Sequence[str]) -> str:
    """A hash of a set of prompts, whatever their order."""
    return hashlib.sha256('\n'.join(sorted(set(prompts))).encode()).hexdigest()
