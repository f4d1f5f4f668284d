#!/usr/bin/env bash
# A cost model against held-out pairs. Any flag of `python -m safe_align.evaluate.cost` can follow; it wins.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.evaluate.cost --datasets PKU-SafeRLHF/test --output_dir output/cost-evaluation \
    --model_name_or_path output/cm "$@"
