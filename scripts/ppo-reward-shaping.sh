#!/usr/bin/env bash
# PPO on the reward less a price times the cost. Any flag of `python -m safe_align.algorithms.ppo_reward_shaping` can
# follow; it wins over the ones here.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.algorithms.ppo_reward_shaping --output_dir output/ppo-reward-shaping \
    "${ACTOR[@]}" "${CRITIC[@]}" --cost_model_name_or_path output/cm "$@"
