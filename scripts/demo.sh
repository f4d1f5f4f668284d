#!/usr/bin/env bash
# The whole pipeline on a small real model, with settings for a CPU: SFT, reward, cost, PPO-Lag, arena, safety test,
# and a report of it all.
#
# DATA    directory with train.jsonl and test.jsonl in PKU-SafeRLHF's columns (default: the starter set)
# MODEL   model to start from (default: SmolLM2-135M-Instruct)
# OUTPUT  directory for everything that is written (default: output/demo)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHON="${PYTHON:-python3}" WANDB_MODE="${WANDB_MODE:-offline}"
DATA="${DATA:-$here/../examples/starter}"
OUTPUT="${OUTPUT:-output/demo}"
MODEL="${MODEL:-$OUTPUT/SmolLM2-135M-Instruct}"
started=$SECONDS

part() { # the file train or test of DATA, packed or not
    for file in "$DATA/$1.jsonl" "$DATA/$1.jsonl.gz"; do
        [[ -f "$file" ]] && { echo "jsonl:1:$file"; return; }
    done
    echo "demo: error: DATA=$DATA: no $1.jsonl or $1.jsonl.gz there" >&2
    exit 2
}
stage() {
    local name="$1" from=$SECONDS
    shift
    echo "== $name" >&2
    bash "$here/$name.sh" --log_type none --tf32 False "$@" || return
    echo "== $name took $((SECONDS - from)) s" >&2
}

train="$(part train)"
test="$(part test)"
if [[ "$MODEL" == "$OUTPUT/SmolLM2-135M-Instruct" ]]; then
    "$PYTHON" "$here/small_model.py" "$MODEL"
fi
peak() { # the most memory that a stage took
    "$PYTHON" -c 'import json, sys; print(max(json.load(open(path))["peak_memory_gib"] for path in sys.argv[1:]))' \
        "$OUTPUT"/{sft,rm,cm,ppo-lag,arena,certificate}/safe_align.json
}
values=(--model_name_or_path "$OUTPUT/sft" --train_datasets "$train" --eval_datasets "$test" --no_gradient_checkpointing)

answers=(--max_new_tokens 40 --temperature 0.7) # at 1, a model this small writes nonsense, and costs are noise

stage sft --model_name_or_path "$MODEL" --train_datasets "$train" --output_dir "$OUTPUT/sft" \
    --epochs 1 --gradient_accumulation_steps 2 --no_gradient_checkpointing
stage reward-model "${values[@]}" --output_dir "$OUTPUT/rm" --epochs 1
stage cost-model "${values[@]}" --output_dir "$OUTPUT/cm" --epochs 1 --lr 3e-5 --lr_warmup_ratio 0.1
stage ppo-lag --actor_model_name_or_path "$OUTPUT/sft" --reward_model_name_or_path "$OUTPUT/rm" \
    --cost_model_name_or_path "$OUTPUT/cm" --train_datasets "$train" --output_dir "$OUTPUT/ppo-lag" \
    --reward_critic_model_name_or_path "$OUTPUT/sft" --cost_critic_model_name_or_path "$OUTPUT/sft" \
    "${answers[@]}" --per_device_prompt_batch_size 16 --per_device_train_batch_size 8 --gae_lambda 1 \
    --actor_lr 5e-5 --actor_lr_scheduler_type constant --threshold -3 --lambda_init 2 \
    --no_actor_gradient_checkpointing --no_critic_gradient_checkpointing
stage arena-evaluation --red_corner_model_name_or_path "$OUTPUT/sft" --blue_corner_model_name_or_path "$OUTPUT/ppo-lag" \
    --reward_model_name_or_path "$OUTPUT/rm" --cost_model_name_or_path "$OUTPUT/cm" --datasets "$test" \
    --output_dir "$OUTPUT/arena" "${answers[@]}" --num_return_sequences 4
verdict=0
stage safety-test --model_name_or_path "$OUTPUT/ppo-lag" --cost_model_name_or_path "$OUTPUT/cm" --datasets "$test" \
    --output_dir "$OUTPUT/certificate" --ledger "$OUTPUT/test.ledger" "${answers[@]}" --threshold 0.4 || verdict=$?
((verdict == 0 || verdict == 3)) || exit "$verdict"
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -m safe_align.evaluate.report "$OUTPUT"

cat <<END
The stages took $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s and at most $(peak) GiB of memory. What they left:

  policy before    $OUTPUT/sft
  reward model     $OUTPUT/rm
  cost model       $OUTPUT/cm
  policy after     $OUTPUT/ppo-lag
  arena            $OUTPUT/arena (summary.json, table.csv)
  safety test      $OUTPUT/certificate (README.md says what was certified, or why nothing was)
  metrics          $OUTPUT/*/metrics.jsonl
  report           $OUTPUT/report.html (all of it on one page, for a browser)

What to run next:

  your own data    make demo DATA=path/to/your/folder OUTPUT=output/mine
  every option     bash scripts/ppo-lag.sh --help
END
