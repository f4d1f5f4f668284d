"""Stage: PPO-Lag, PPO under constraints on expected costs (Safe RLHF, arXiv:2310.12773)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safe_align.algorithms.rl_fields import MultiplierFields, PPOFields, check_multipliers
from safe_align.config import UserError, arg, run


@dataclass(kw_only=True, frozen=True)
class PPOLagConfig(MultiplierFields, PPOFields):
    """Train a policy by PPO-Lag: more reward, near the reference, with expected costs at or below --threshold."""

    cost_critic_model_name_or_path: list[str] | None = arg(
        None, 'models the cost critics start from (default: the cost models; with a function, the policy)'
    )
    episode_cost_window_size: int = arg(128, 'how many of the newest costs its mean is over', low=1)
    lambda_normalize: Literal['one_plus_lambda', 'none'] = arg(
        'one_plus_lambda',
        'divide advantages by 1 + lambda, with the divergence in reward and costs, as safe-rlhf does; or do not, with '
        'it in the reward alone, which is what the constrained problem says',
    )

    def __post_init__(self) -> None:
        """Check what fields say together.

        Raises:
            UserError: two of them contradict each other.
        """
        super().__post_init__()
        check_multipliers(self)
        critics = self.cost_critic_model_name_or_path
        if critics and len(critics) != len(self.cost_model_name_or_path):
            raise UserError('--cost_critic_model_name_or_path: give one a cost model')


def main(config: PPOLagConfig) -> int:
    """Train, and write a policy directory."""
    from safe_align.algorithms.actor_critic import ActorCritic
    from safe_align.algorithms.ppo_stage import actor_critic, check_critics, cost_signals, reward_signal
    from safe_align.algorithms.rl_stage import Parts, run_rl

    normalize = config.lambda_normalize == 'one_plus_lambda'

    def algorithm(parts: Parts) -> ActorCritic:
        reward, costs = reward_signal(parts.workshop), cost_signals(parts.workshop, kl_sign=int(normalize))
        return actor_critic(parts, reward, costs, normalize)

    return run_rl(config, 'ppo-lag', algorithm, check_critics)


if __name__ == '__main__':
    run(PPOLagConfig, main)
