"""Costs of a deployed policy, one after another: an alarm as soon as they show that it is above the threshold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from safe_align.config import UserError
from safe_align.evaluate.certification.certificate import Claim
from safe_align.guarantees import EProcess

ALARM = 3  # exit code
EVERY = 100  # costs between two lines, as long as nothing happens


def watch(claim: Claim, lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """What there is to say of the costs in `lines`, and whether it is an alarm, which is the last.

    With probability 1 - delta there is never an alarm for a policy that is at most at the threshold, however long it
    is watched (Ville); each cost counts as that of a prompt of its own.

    Raises:
        UserError: a line that is no number and no row with a cost, or a cost outside the range that is not to be cut.
    """
    low, high = claim.limits
    alarm = EProcess(claim.threshold, low, high, claim.delta, 'above')
    safe = EProcess(claim.threshold, low, high, claim.delta, 'at most')
    was_safe = False
    for number, line in enumerate(filter(str.strip, lines), 1):
        value, _ = claim.values([''], [_cost(line, number)])
        alarm.update(value)
        safe.update(value)
        mean = low + (high - low) * safe.total / number
        if alarm.established:
            said = f'above {claim.threshold:g} (mean {mean:.4g}, e-value {alarm.value:.4g})'
            yield f'alarm after {number} costs: {said}', True
            return
        if safe.established and not was_safe:
            was_safe = True
            yield f'after {number} costs: shown to be at most {claim.threshold:g} so far (mean {mean:.4g})', False
        elif number % EVERY == 0:
            yield (
                f'{number} costs: mean {mean:.4g}, e-value of an alarm {alarm.value:.4g} of {1 / claim.delta:g}',
                False,
            )


def run_monitor(claim: Claim, lines: Iterable[str]) -> int:
    """Print what there is to say, as it happens; 3 after an alarm, 0 where the costs end without one."""
    for text, is_alarm in watch(claim, lines):
        print(text, flush=True)
        if is_alarm:
            return ALARM
    return 0


def _cost(line: str, number: int) -> float:
    try:
        row = json.loads(line)
        return float(row['cost'] if isinstance(row, dict) else row)
    except (ValueError, KeyError, TypeError) as error:
        expected = f'a number or {{"cost": number}} was expected, found {line.strip()[:60]!r}'
        raise UserError(f'--monitor: line {number}: {expected}') from error
