"""Stage: PPO on the reward less a fixed price times the cost, which is what PPO-Lag is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.algorithms.rl_fields import PPOFields
from safe_align.config import arg, run


@dataclass(kw_only=True, frozen=True)
class RewardShapingConfig(PPOFields):
    """Train a policy by PPO on reward - lambda x cost with a lambda that stays as it is."""

    cost_model_name_or_path: str = arg(help='cost model, or function:NAME')
    normalize_cost: bool = arg(False, "scale costs by the cost model's normaliser; their sign stays")
    lambda_init: float = arg(1.0, 'what a unit of cost takes off the reward', low=0)


def main(config: RewardShapingConfig) -> int:
    """Train, and write a policy directory."""
    from safe_align.algorithms.actor_critic import ActorCritic, ShapedReward
    from safe_align.algorithms.ppo_stage import actor_critic, check_critics, critic_of
    from safe_align.algorithms.rl_stage import Parts, run_rl

    def algorithm(parts: Parts) -> ActorCritic:
        workshop = parts.workshop
        reward, cost = workshop.scorer('reward'), workshop.scorer('cost')
        critic = critic_of(workshop, 'reward')
        return actor_critic(parts, ShapedReward('shaped_reward', reward, critic, -1, cost, config.lambda_init))

    return run_rl(config, 'ppo-reward-shaping', algorithm, lambda workshop: check_critics(workshop, ['reward']))


if __name__ == '__main__':
    run(RewardShapingConfig, main)
