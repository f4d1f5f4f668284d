#!/usr/bin/env bash
# PPO-Lag. Any flag of `python -m safe_align.algorithms.ppo_lag` can follow; it wins over the ones here.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.algorithms.ppo_lag --output_dir output/ppo-lag "${ACTOR[@]}" "${CRITIC[@]}" \
    --cost_model_name_or_path output/cm --kl_coeff 0.01 --lambda_max 5.0 "$@"
