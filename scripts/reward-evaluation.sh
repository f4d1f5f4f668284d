#!/usr/bin/env bash
# A reward model against held-out pairs. Any flag of `python -m safe_align.evaluate.reward` can follow; it wins.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.evaluate.reward --datasets PKU-SafeRLHF/test --output_dir output/reward-evaluation \
    --model_name_or_path output/rm "$@"
