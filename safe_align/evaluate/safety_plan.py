"""How many prompts a safety test needs, so that a policy that is safe by some margin passes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_align.config import UserError
from safe_align.guarantees import plan_num_prompts, plan_num_prompts_binary

if TYPE_CHECKING:
    from safe_align.evaluate.safety_test import SafetyTestConfig


def run_plan(config: SafetyTestConfig) -> int:
    """Print the number of prompts for each threshold.

    Raises:
        UserError: a gap or a power that no number of prompts gives.
    """
    gap = config.plan or 0.0
    for threshold in config.threshold or []:
        if config.claim == 'unsafe_rate':
            n = plan_num_prompts_binary(
                rate=threshold - gap, threshold=threshold, delta=config.delta, power=config.plan_power
            )
            what = f'a rate of {threshold - gap:g} is certified to be at most {threshold:g} by clopper_pearson'
        else:
            if config.plan_sd is None:
                raise UserError('--plan_sd is missing: the standard deviation of a cost, such as in an earlier run')
            n = plan_num_prompts(gap=gap, sd=config.plan_sd, delta=config.delta, power=config.plan_power)
            what = (
                f'a mean cost of {threshold - gap:g} is certified to be at most {threshold:g} by student_t; bounds '
                'that hold without --assume_normal need more, the more the wider --range is'
            )
        print(f'{n} prompts: with probability {config.plan_power:g}, {what} (delta {config.delta:g})')
    return 0
