#!/usr/bin/env bash
# Preference learning from the policy's own responses, in one process: online-dpo.sh does it as files. Any flag of
# `python -m safe_align.algorithms.online_dpo` can follow; it wins.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
reward=(--reward_model_name_or_path output/rm)
[[ " $* " == *" --annotator "* ]] && reward=() # it may read none
launch safe_align.algorithms.online_dpo --model_name_or_path output/sft "${reward[@]}" \
    --output_dir output/online "${PREFERENCE[@]}" --per_device_prompt_batch_size 64 "$@"
