#!/usr/bin/env bash
# Supervised fine-tuning. Any flag of `python -m safe_align.finetune` can follow; it wins over the ones here.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch safe_align.finetune --model_name_or_path huggyllama/llama-7b --train_datasets alpaca --output_dir output/sft \
    --epochs 3 --per_device_train_batch_size 4 --gradient_accumulation_steps 8 --gradient_checkpointing \
    --lr_warmup_ratio 0.03 --weight_decay 0.0 --tf32 True "$@"
