"""DPO on real pairs, and how often the policy prefers the chosen answer of pairs that it was not trained on.

python benchmarks/preference_outcome.py --model output/demo/sft --data DATA --output output/dpo-harmless

DATA holds hh_harmless_train.jsonl.gz and hh_harmless_test.jsonl.gz, or train.jsonl and test.jsonl; the starter set, if
not given. The stage is the script that a user runs, with settings for two CPU cores; options that are not known here
are passed on to it. The policy prefers the answer whose log-ratio to the reference is the larger, a tie being one half;
before training all are ties, but for rounding. Killed and started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import machine
import numpy as np
from outcome import stage
from peer_rows import STARTER

from safe_align.datasets.mixture import Mixture, build
from safe_align.datasets.raw.jsonl import JsonLines
from safe_align.evaluate.statistics import Estimate, share
from safe_align.models.loading import load_tokenizer
from safe_align.templates import Template

SEED = 42


def part(data: Path, name: str) -> Path:
    """The file of that part, `train` or `test`.

    Raises:
        SystemExit: there is none.
    """
    names = [f'{stem}{end}' for stem in (f'hh_harmless_{name}', name) for end in ('.jsonl.gz', '.jsonl')]
    for file in (data / one for one in names):
        if file.is_file():
            return file
    raise SystemExit(f'--data {data}: none of {", ".join(names)} is there')


def train(args: argparse.Namespace, held_out: str) -> None:
    """The stage."""
    file = part(args.data, 'train')
    rows = min(args.rows, len(JsonLines(str(file))))
    stage(
        'dpo', '--model_name_or_path', args.model, '--output_dir', args.output, '--loss_options', f'beta={args.beta}',
        '--datasets', f'jsonl:{rows}/-1:{file}', '--eval_datasets', held_out, '--need_eval', '--seed', SEED,
        '--max_length', args.max_length, '--per_device_train_batch_size', args.batch, '--lr', args.lr,
        '--gradient_accumulation_steps', 1, '--no_gradient_checkpointing', '--lr_warmup_ratio', 0.1,
        '--weight_decay', 0, *args.more,
    )  # fmt: skip


def independent(prompts: np.ndarray) -> int:
    """How many pairs with prompts of their own would tell as much, were all answers to one prompt alike: (n,) -> N."""
    _, sizes = np.unique(prompts, return_counts=True)
    return int(len(prompts) ** 2 // (sizes**2).sum())


def accuracy(value: float, prompts: np.ndarray) -> Estimate:
    """An accuracy with Wilson's interval; pairs with one prompt count as alike."""
    total = independent(prompts)
    interval = share(int(value * total + 1e-6), total)
    return Estimate(value, interval.low, interval.high)


def report(output: Path, held_out: Mixture) -> None:
    """Print the held-out numbers beside what is asked."""
    lines = [json.loads(line) for line in (output / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    first, *_, last = [line for line in lines if 'eval/accuracy' in line]
    print(f'| held out, {len(held_out)} pairs, {len(np.unique(held_out.hashes))} prompts | before | after |')
    print('|---|---|---|')
    for name in ('loss', 'margin', 'log_ratio_chosen', 'log_ratio_rejected'):
        print(f'| {name} | {first[f"eval/{name}"]:.4f} | {last[f"eval/{name}"]:.4f} |')
    after = accuracy(last['eval/accuracy'], held_out.hashes)
    print(f'| accuracy | all ties | {after} |')
    verdict = 'is' if after.low > 0.5 else 'is NOT'
    print(f'\nheld-out implicit accuracy {after} {verdict} clear of 0.5')
    print('(asked: above 0.5 with its interval clear of it)')
    record = json.loads((output / 'safe_align.json').read_text(encoding='utf-8'))
    steps = max(line['step'] for line in lines)
    print(
        f'{sum(entry["used"] for entry in record["datasets"])} pairs, {steps} steps, '
        f'{record["seconds_since_last_start"]:.0f} s, peak memory {record["peak_memory_gib"]:.1f} GiB'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True)
    parser.add_argument('--output', required=True, type=Path)
    parser.add_argument('--data', type=Path, default=STARTER.parent)
    parser.add_argument('--rows', type=int, default=320, help='pairs to train on, if there are as many')
    parser.add_argument('--max_length', type=int, default=192)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--lr', type=float, default=3e-5)
    parser.add_argument('--beta', type=float, default=0.1)
    args, rest = parser.parse_known_args()
    args.more = rest
    print(machine.describe(), flush=True)
    spec = f'jsonl:1:{part(args.data, "test")}'
    train(args, spec)
    template = Template(load_tokenizer(args.model, '--model'))
    report(args.output, build([spec], 'preference', template, args.max_length, seed=SEED))


if __name__ == '__main__':
    main()
