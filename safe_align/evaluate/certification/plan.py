"""How many prompts a safety test needs, so that a policy that is safe by some margin passes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safe_align.config import UserError
from safe_align.evaluate.certification.certificate import Claim
from safe_align.guarantees import plan_num_prompts, plan_num_prompts_betting, plan_num_prompts_binary

if TYPE_CHECKING:
    from safe_align.evaluate.safety_test import SafetyTestConfig


def run_plan(config: SafetyTestConfig, claims: Sequence[Claim]) -> int:
    """Print the number of prompts for each claim.

    Raises:
        UserError: a gap, a deviation or a power that no number of prompts gives, or a bound that there is no plan for.
    """
    for claim in claims:
        n, how = _plan(config, claim)
        quantity, truth = 'rate' if claim.kind == 'unsafe_rate' else 'mean cost', claim.threshold - (config.plan or 0.0)
        print(
            f'{n} prompts: with probability {config.plan_power:g}, a {quantity} of {truth:g} is '
            f'certified to be at most {claim.threshold:g} by {how} (delta {claim.delta:g})'
        )
    return 0


def _plan(config: SafetyTestConfig, claim: Claim) -> tuple[int, str]:
    """The number, and by which bound and what it rests on."""
    gap, delta, power = config.plan or 0.0, claim.delta, config.plan_power
    if claim.bound == 'clopper_pearson':
        rate = claim.threshold - gap
        n = plan_num_prompts_binary(rate=rate, threshold=claim.threshold, delta=delta, power=power)
        return n, 'clopper_pearson'
    if claim.bound not in ('betting', 'student_t'):
        raise UserError(f'--plan: --bound {claim.bound}: there is a plan for clopper_pearson, betting and student_t')
    sd = config.plan_sd
    if sd is None:
        raise UserError("--plan_sd is missing: the standard deviation of a prompt's cost, such as in an earlier run")
    if claim.bound == 'student_t':
        return plan_num_prompts(gap=gap, sd=sd, delta=delta, power=power), 'student_t, if the mean is normal'
    low, high = claim.limits
    n = plan_num_prompts_betting(
        gap=gap, sd=sd, threshold=claim.threshold, low=low, high=high, delta=delta, power=power
    )
    return n, f'betting, by simulation of a beta law with standard deviation {sd:g} on [{low:g}, {high:g}]'
