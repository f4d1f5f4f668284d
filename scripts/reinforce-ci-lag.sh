#!/usr/bin/env bash
# REINFORCE under a confidence bound. Any flag of `python -m safe_align.algorithms.reinforce_ci_lag` can follow; it wins
# over the ones here, which are HC-RLHF's.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.algorithms.reinforce_ci_lag --output_dir output/reinforce-ci-lag "${ACTOR[@]}" \
    --cost_model_name_or_path output/cm --per_device_prompt_batch_size 64 --actor_lr 5e-6 --kl_coeff 0.1 \
    --lambda_lr 0.01 --lambda_max 1e6 --max_grad_norm 5 "$@"
