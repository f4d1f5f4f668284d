"""The five stages on real corpora, and what came of it: accuracies of the score models, and PPO-Lag against SFT.

python benchmarks/outcome.py --model output/demo/SmolLM2-135M-Instruct --output output/outcome \
    --sft alpaca_train.jsonl.gz --helpful hh_helpful_train.jsonl.gz hh_helpful_test.jsonl.gz \
    --safety pku_safety_pairs_train.jsonl.gz pku_safety_pairs_test.jsonl.gz

The stages are the scripts that a user runs, with settings for two CPU cores; killed and started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from safe_align.evaluate.statistics import share

ROOT = Path(__file__).parents[1]
STAGES = ('sft', 'rm', 'cm', 'ppo-lag', 'arena')


def stage(script: str, *flags: object) -> None:
    """Run a stage's script."""
    command = ['bash', ROOT / 'scripts' / f'{script}.sh', '--log_type', 'none', '--tf32', 'False', *flags]
    subprocess.run([*map(str, command)], check=True, env={**os.environ, 'PYTHON': sys.executable})


def run(args: argparse.Namespace) -> None:
    """All five stages."""
    out, plain = Path(args.output), ('--no_gradient_checkpointing',)
    stage(
        'sft', '--model_name_or_path', args.model, '--datasets', f'jsonl:{args.sft_rows}/-1:{args.sft}', '--epochs', 1,
        '--output_dir', out / 'sft', '--max_length', 192, '--gradient_accumulation_steps', 2, *plain,
    )  # fmt: skip
    pairs = (
        '--model_name_or_path',
        out / 'sft',
        '--epochs',
        1,
        '--max_length',
        192,
        '--per_device_train_batch_size',
        16,
        '--lr_warmup_ratio',
        0.1,
        *plain,
    )
    for name, script, (train, test) in (('rm', 'reward-model', args.helpful), ('cm', 'cost-model', args.safety)):
        stage(
            script, *pairs, '--datasets', f'jsonl:{args.pairs}/-1:{train}', '--eval_datasets', f'jsonl:1:{test}',
            '--eval_strategy', 'steps', '--eval_interval', -(-args.pairs // 16), '--output_dir', out / name,
        )  # fmt: skip
    stage(
        'ppo-lag', '--actor_model_name_or_path', out / 'sft', '--reward_model_name_or_path', out / 'rm',
        '--cost_model_name_or_path', out / 'cm', '--datasets', f'jsonl:{args.prompts}/-1:{args.safety[0]}',
        '--reward_critic_model_name_or_path', out / 'sft', '--cost_critic_model_name_or_path', out / 'sft',
        '--output_dir', out / 'ppo-lag', '--max_new_tokens', 40, '--max_length', 128, '--temperature', args.temperature,
        '--per_device_prompt_batch_size', args.batch, '--per_device_train_batch_size', args.batch // 2,
        '--actor_lr', args.actor_lr, '--critic_lr', args.critic_lr, '--kl_coeff', args.kl_coeff, '--gae_lambda', 1,
        '--threshold', -0.5, '--lambda_init', 0.6, '--lambda_lr', 0.05, '--actor_lr_scheduler_type', 'constant',
        '--no_actor_gradient_checkpointing', '--no_critic_gradient_checkpointing', *args.ppo,
    )  # fmt: skip
    stage(
        'arena-evaluation', '--red_corner_model_name_or_path', out / 'sft',
        '--blue_corner_model_name_or_path', out / 'ppo-lag', '--reward_model_name_or_path', out / 'rm',
        '--cost_model_name_or_path', out / 'cm', '--datasets', f'jsonl:1:{args.safety[1]}',
        '--output_dir', out / 'arena', '--max_new_tokens', 40, '--max_length', 128, '--num_return_sequences', 4,
        '--temperature', args.temperature,
    )  # fmt: skip


def held_out_accuracy(directory: Path) -> tuple[float, int]:
    """The last ranking accuracy on held-out pairs, and how many there were."""
    lines = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    last = [line['eval/accuracy'] for line in lines if 'eval/accuracy' in line][-1]
    record = json.loads((directory / 'safe_align.json').read_text(encoding='utf-8'))
    return last, sum(entry['used'] for entry in record['held_out'])


def report(out: Path) -> None:
    """Print each figure beside what was asked."""
    for name, asked in (('rm', 'above 0.5, clear of it'), ('cm', '>= 0.62')):
        accuracy, pairs = held_out_accuracy(out / name)
        right = share(round(accuracy * pairs), pairs)
        print(f'{name} ranking accuracy on {pairs} held-out pairs: {right} (asked: {asked})')
    summary = json.loads((out / 'arena' / 'summary.json').read_text(encoding='utf-8'))
    for kind, asked in (('cost', 'interval below 0'), ('reward', 'not lower')):
        d = summary[f'{kind}_difference']
        difference = f'{d["value"]:.3f} [{d["low"]:.3f}, {d["high"]:.3f}]'
        print(f'{kind}, PPO-Lag - SFT, {summary["num_prompts"]} prompts: {difference} (asked: {asked})')
    for corner in ('red', 'blue'):
        print(f'{corner} safe: {summary[f"{corner}_safe"]["value"]:.3f}')
    last = [json.loads(line) for line in (out / 'ppo-lag' / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()][
        -1
    ]
    print(f'KL to the reference at the end: {last["train/kl_divergence"]:.2f} nats a response')
    records = {name: json.loads((out / name / 'safe_align.json').read_text(encoding='utf-8')) for name in STAGES}
    seconds = {name: record['seconds_since_last_start'] for name, record in records.items()}
    each = ', '.join(f'{name} {value:.0f}' for name, value in seconds.items())
    print(f'seconds: {each}, in all {sum(seconds.values()):.0f} (asked: 3600)')
    print(f'peak memory: {max(record["peak_memory_gib"] for record in records.values()):.1f} GiB')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True)
    parser.add_argument('--output', required=True)
    parser.add_argument('--sft', required=True)
    parser.add_argument('--helpful', nargs=2, required=True, metavar=('TRAIN', 'TEST'))
    parser.add_argument('--safety', nargs=2, required=True, metavar=('TRAIN', 'TEST'))
    parser.add_argument('--sft_rows', type=int, default=320)
    parser.add_argument('--pairs', type=int, default=640)
    parser.add_argument('--prompts', type=int, default=900)
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--temperature', type=float, default=0.7)
    parser.add_argument('--actor_lr', type=float, default=5e-5)
    parser.add_argument('--critic_lr', type=float, default=5e-6)
    parser.add_argument('--kl_coeff', type=float, default=0.05)
    args, rest = parser.parse_known_args()
    args.ppo = rest
    run(args)
    report(Path(args.output))


if __name__ == '__main__':
    main()
