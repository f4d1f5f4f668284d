"""Stage: REINFORCE with costs held below their threshold at an upper confidence bound (HC-RLHF, arXiv:2506.08266)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from safe_align.algorithms.rl_fields import PASS_CHANCE, MultiplierFields, RLFields, check_multipliers
from safe_align.config import UserError, arg, run

LEAST = 2  # prompts of a round: one alone has no deviation


@dataclass(kw_only=True, frozen=True)
class ReinforceConfig(MultiplierFields, RLFields):
    """Train a policy by REINFORCE: more reward, near the reference, with an upper bound on costs below --threshold."""

    bound: Literal['mean', 'student_t', 'empirical_bernstein'] = arg('student_t', 'on the expected cost')
    fail_prob: float = arg(0.1, 'chance that the bound may fail, which the safety test will be held to', low=0, high=1)
    safety_dataset_size: int = arg(1000, 'prompts of the safety test to come', low=2)
    kappa: Literal['fixed', 'auto'] = arg(
        'fixed',
        'standard deviations above the mean: by --students_c1 and --students_c2, or such that the test is passed with '
        f'a predicted chance of {PASS_CHANCE}',
    )
    students_c1: float = arg(1.0, "weight of the margin of a round's prompts", low=0)
    students_c2: float = arg(1.0, "weight of the margin of the safety test's prompts", low=0)
    range: list[float] | None = arg(None, 'lowest and highest cost, for empirical_bernstein')
    num_samples_per_prompt: int = arg(1, 'responses a prompt, which are compared with each other', low=1)
    rloo: bool = arg(False, 'the same as --advantage rloo')
    advantage: Literal['running_mean', 'rloo', 'grpo', 'dr_grpo', 'reinforce_plus_plus'] | None = arg(
        None,
        'what a response is compared with: the mean of the rounds before, the other responses to its prompt, all of '
        'them (grpo also divides by its length), or all of the round; centred, never standardised, so that lambda '
        'stays a price (default: running_mean)',
    )
    lambda_normalize: Literal['one_plus_lambda', 'none'] = arg(
        'none', 'divide reward and costs by 1 + lambda, the divergence apart; or not'
    )

    @property
    def compared_with(self) -> str:
        """The advantage, by whichever flag."""
        return 'rloo' if self.rloo else self.advantage or 'running_mean'

    def __post_init__(self) -> None:
        """Check what fields say together.

        Raises:
            UserError: two of them contradict each other.
        """
        super().__post_init__()
        check_multipliers(self)
        if self.rloo and self.advantage not in (None, 'rloo'):
            raise UserError(f'--rloo True and --advantage {self.advantage}: choose one')
        if self.num_samples_per_prompt == 1 and self.compared_with in ('rloo', 'grpo', 'dr_grpo'):
            raise UserError(
                f'--num_samples_per_prompt 1: {self.compared_with} compares the responses to a prompt; give 2 or more'
            )
        if self.num_return_sequences != 1:
            raise UserError('--num_return_sequences: --num_samples_per_prompt says it here')
        if self.per_device_prompt_batch_size < LEAST:
            raise UserError(f'--per_device_prompt_batch_size 1: a bound needs the costs of {LEAST} prompts or more')
        if self.bound == 'empirical_bernstein' and not self.range:
            raise UserError('--bound empirical_bernstein: needs --range LOW HIGH')
        if self.range and not (len(self.range) == 2 and -math.inf < self.range[0] < self.range[1] < math.inf):
            told = ' '.join(map(str, self.range))
            raise UserError(f'--range {told}: two finite numbers were expected, the lower first')
        if not 0 < self.fail_prob < 1:
            raise UserError(f'--fail_prob {self.fail_prob:g}: must be above 0 and below 1')


def main(config: ReinforceConfig) -> int:
    """Train, and write a policy directory."""
    from functools import partial

    from safe_align import plugins
    from safe_align.algorithms.pessimism import Pessimism
    from safe_align.algorithms.reinforce import Constraint, Reinforce, ReinforceOptions
    from safe_align.algorithms.rl_stage import Parts, run_rl

    low, high = config.range or (-math.inf, math.inf)
    margin = partial(plugins.load('safe_align.bounds', config.bound).margin, delta=config.fail_prob, low=low, high=high)
    pessimism = Pessimism(
        margin, config.safety_dataset_size, config.students_c1, config.students_c2,
        PASS_CHANCE if config.kappa == 'auto' else None,
    )  # fmt: skip

    def algorithm(parts: Parts) -> Reinforce:
        workshop = parts.workshop
        constraints = [
            Constraint(name, workshop.scorer('cost', n), pessimism, workshop.multiplier(n))
            for n, name in enumerate(workshop.cost_names())
        ]
        options = ReinforceOptions(
            kl_coeff=config.kl_coeff, clip_range_ratio=config.clip_range_ratio,
            clip_range_score=config.clip_range_score, ptx_coeff=config.ptx_coeff, update_iters=config.update_iters,
            batch_size=parts.batch_size, micro_batch_tokens=config.micro_batch_tokens,
            num_samples_per_prompt=config.num_samples_per_prompt, advantage=config.compared_with,
            normalize=config.lambda_normalize == 'one_plus_lambda',
        )  # fmt: skip
        return Reinforce(parts, workshop.scorer('reward'), constraints, options)

    return run_rl(config, 'reinforce-ci-lag', algorithm, samples=config.num_samples_per_prompt, least=LEAST)


if __name__ == '__main__':
    run(ReinforceConfig, main)
