#!/usr/bin/env bash
# Held-out prompts and a cost model: a certificate of a policy's safety, or none. Any flag of
# `python -m safe_align.evaluate.safety_test` can follow; it wins. It ends with 0: certified; 3: no solution found.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.evaluate.safety_test --datasets PKU-SafeRLHF/test --output_dir output/safety-test \
    --model_name_or_path output/ppo-lag --cost_model_name_or_path output/cm --threshold 0.05 "$@"
