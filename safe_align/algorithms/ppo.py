"""Stage: PPO against a reward model."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.algorithms.rl_fields import PPOFields
from safe_align.config import run


@dataclass(kw_only=True, frozen=True)
class PPOConfig(PPOFields):
    """Train a policy by PPO: more reward, near the reference."""


def main(config: PPOConfig) -> int:
    """Train, and write a policy directory."""
    from safe_align.algorithms.ppo_stage import actor_critic, check_critics, reward_signal
    from safe_align.algorithms.rl_stage import run_rl

    return run_rl(config, 'ppo', lambda parts: actor_critic(parts, reward_signal(parts.workshop)), check_critics)


if __name__ == '__main__':
    run(PPOConfig, main)
