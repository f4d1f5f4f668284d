#!/usr/bin/env bash
# A cost model. Any flag of `python -m safe_align.values.cost` can follow; it wins over the ones here.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.values.cost --model_name_or_path output/sft --output_dir output/cm "${SCORE_MODEL[@]}" "$@"
