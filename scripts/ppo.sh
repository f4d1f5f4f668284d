#!/usr/bin/env bash
# PPO. Any flag of `python -m safe_align.algorithms.ppo` can follow; it wins over the ones here.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.algorithms.ppo --output_dir output/ppo "${ACTOR[@]}" "${CRITIC[@]}" "$@"
