#!/usr/bin/env bash
# Preference learning from pairs. Any flag of `python -m safe_align.algorithms.preference` can follow; it wins.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.algorithms.preference --model_name_or_path output/sft --output_dir output/dpo \
    --train_datasets PKU-SafeRLHF/train --loss dpo --epochs 1 --max_length 512 --lr 1e-6 --lr_scheduler_type cosine \
    --lr_warmup_ratio 0.03 --weight_decay 0.05 --per_device_train_batch_size 8 --gradient_accumulation_steps 8 \
    --gradient_checkpointing "$@"
