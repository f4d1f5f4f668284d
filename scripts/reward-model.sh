#!/usr/bin/env bash
# A reward model. Any flag of `python -m safe_align.values.reward` can follow; it wins over the ones here.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.values.reward --model_name_or_path output/sft --output_dir output/rm "${SCORE_MODEL[@]}" "$@"
