"""Stage: a test on held-out prompts that ends in a certificate of a policy's safety, or in none."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from safe_align import plugins
from safe_align.config import UserError, arg, run
from safe_align.evaluate.fields import AnswerFields
from safe_align.fields import datasets_arg


@dataclass(kw_only=True, frozen=True)
class SafetyTestConfig(AnswerFields):
    """Certify that a policy is safe, with probability 1 - delta, on prompts that nothing was trained on.

    Exit code 0: certified; 3: no solution found; 2: a mistake in the call.
    """

    output_dir: str = arg('', 'directory that this stage writes; needless with --verify and --plan')
    model_name_or_path: list[str] | None = arg(
        None, 'policy to test; of several, in the order given, the last that passes before one fails is certified',
        aliases=['candidates'],
    )  # fmt: skip
    cost_model_name_or_path: list[str] | None = arg(None, 'cost models, or function:NAME, one a constraint')
    datasets: list[str] | None = datasets_arg(None, 'prompts that neither the policy nor its parents were trained on')
    threshold: list[float] | None = arg(None, 'what must not be exceeded, one a constraint: a rate, or a mean cost')
    delta: float = arg(0.1, 'probability to certify a policy that is above the threshold', aliases=['fail_prob'])
    constraints: Literal['all', 'which'] = arg(
        'all', 'of several constraints, whether all hold, each at the full delta; or which of them hold, all that are '
        "named at delta together (Holm's method): exit code 0 then says that at least one does",
    )  # fmt: skip
    claim: Literal['unsafe_rate', 'mean_cost'] = arg(
        'unsafe_rate', 'what is certified: the rate of responses with a cost above 0, or the mean cost'
    )
    bound: str | None = arg(
        None, 'upper confidence bound (default: clopper_pearson for a rate of one response a prompt, else betting)',
        listed=lambda: [name for name in plugins.names('safe_align.bounds') if name != 'mean'],
    )  # fmt: skip
    range: list[float] | None = arg(None, 'least and largest cost that there can be, for mean_cost')
    clip_costs: bool = arg(False, 'cut costs outside --range; the certificate is then of the cost that is cut')
    assume_normal: bool = arg(False, 'take mean costs to be normal, as student_t does; it fails for rare harms')
    samples_per_prompt: int = arg(1, 'responses a prompt; the prompt stays the unit', low=1)
    labels: str | None = arg(
        None, 'true costs for some of the prompts, JSON lines {"prompt": id or text, "label": cost}; the claim is then '
        "of the true cost, whatever the cost model's error",
    )  # fmt: skip
    label_weight: float = arg(1.0, 'how much of the cost model --labels use; fixed beforehand', low=0, high=1)
    strata: str | None = arg(None, "key of a prompt's kind in its row; what is claimed must hold on every kind")
    strata_weights: list[str] | None = arg(
        None, 'KIND=SHARE ...: the claim is about prompts of these shares, with delta split among the kinds'
    )
    ledger: str | None = arg(None, 'file of all looks at these prompts (default: beside the data file)')
    costs: str | None = arg(None, 'costs given, no generation: JSON lines {"prompt": id or text, "cost": number}')
    verify: str | None = arg(None, 'certificate.json to check against its costs and models')
    plan: float | None = arg(None, 'say how many prompts are needed if the truth lies this far below --threshold')
    plan_power: float = arg(0.9, 'probability to pass, for --plan', low=0, high=1)
    plan_sd: float | None = arg(None, "standard deviation of a prompt's cost, for --plan of mean costs", low=0)

    monitor: bool = arg(False, 'read costs of a deployed policy from standard input, a line each; exit 3 with an alarm')

    def __post_init__(self) -> None:
        """Check which flags go together.

        Raises:
            UserError: one is missing, or needless.
        """
        self._check_range()
        if self.verify is None:
            self._check_given()

    def _check_range(self) -> None:
        if self.range is not None and len(self.range) != 2:
            raise UserError(f'--range {" ".join(map(str, self.range))}: expected two numbers, the lower first')
        if self.range is not None and self.claim == 'unsafe_rate':
            raise UserError('--range: is for --claim mean_cost; a rate lies between 0 and 1')
        if self.clip_costs and self.claim == 'unsafe_rate':
            raise UserError('--clip_costs: is for --claim mean_cost; a rate depends on the sign of a cost alone')

    def _check_given(self) -> None:
        needed = ['threshold']
        if self.plan is None and not self.monitor:
            models = ['model_name_or_path', 'cost_model_name_or_path', 'datasets']
            needed += ['output_dir', *(models if self.costs is None else [])]
        for name in needed:
            if not getattr(self, name):
                raise UserError(f'--{name} is missing')
        if self.costs is not None and self.datasets is not None:
            raise UserError('--costs and --datasets: choose one; the prompts are those of the costs')
        if self.labels is not None and self.strata is not None:
            raise UserError('--labels and --strata: choose one')
        if self.strata_weights is not None and self.strata is None:
            raise UserError('--strata_weights: needs --strata, the key of the kind')
        if self.constraints == 'which' and len(self.model_name_or_path or []) > 1:
            raise UserError('--constraints which and --candidates: choose one; the order needs one verdict a policy')
        thresholds, costs = len(self.threshold or []), len(self.cost_model_name_or_path or [''])
        if thresholds not in (1, costs):
            raise UserError(f'--threshold: {thresholds} numbers for {costs} cost models; give one, or one each')
        if costs > 1 or len(self.model_name_or_path or []) > 1:
            for flag in ('costs', 'labels'):
                if getattr(self, flag) is not None:
                    raise UserError(f'--{flag}: the file is of one policy and one cost model')


def main(config: SafetyTestConfig) -> int:
    """Test, plan, verify or watch."""
    if config.verify is not None:
        from safe_align.evaluate.certification.verification import run_verification

        return run_verification(config.verify, config.model_name_or_path, config.cost_model_name_or_path)
    if config.plan is not None:
        from safe_align.evaluate.certification.plan import run_plan
        from safe_align.evaluate.certification.run import claims_of

        return run_plan(config, claims_of(config, config.samples_per_prompt))
    if config.monitor:
        from safe_align.evaluate.certification.monitor import run_monitor
        from safe_align.evaluate.certification.run import claims_of

        return run_monitor(claims_of(config, 1)[0], sys.stdin)
    from safe_align.evaluate.certification.run import run_safety_test

    return run_safety_test(config)


if __name__ == '__main__':
    run(SafetyTestConfig, main)
