#!/usr/bin/env bash
# Who wins how often: the answers in output/samples against the better ones of the data. Any flag of
# `python -m safe_align.evaluate.compare` can follow, such as --samples, --baseline or --judge; it wins.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
answers=(--samples output/samples --datasets PKU-SafeRLHF/test)
scorer=(--reward_model_name_or_path output/rm)
[[ " $* " == *" --baseline "* ]] && answers=(--samples output/samples)
[[ " $* " == *" --samples "* || " $* " == *" --file "* ]] && answers=()
[[ " $* " == *" --judge "* ]] && scorer=()
launch safe_align.evaluate.compare --output_dir output/compare "${answers[@]}" "${scorer[@]}" "$@"
