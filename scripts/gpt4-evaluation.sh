#!/usr/bin/env bash
# Two policies before a judge, such as GPT-4, behind an OpenAI-compatible server; its key is in OPENAI_API_KEY. Any flag
# of `python -m safe_align.evaluate.gpt4` can follow, such as --judge_model; it wins. One process asks the judge.
NUM_DEVICES=1
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
corners=(--red_corner_model_name_or_path output/sft --blue_corner_model_name_or_path output/ppo-lag)
[[ " $* " == *" --responses "* ]] && corners=()
launch safe_align.evaluate.gpt4 --judge_url https://api.openai.com/v1 --judge_model gpt-4.1 \
    --output_dir output/gpt4-evaluation "${corners[@]}" "$@"
