"""Useful tokens a second of SFT, reward models, DPO and generation, beside TRL and `transformers`, on the same rows.

python benchmarks/throughput.py --model output/demo/SmolLM2-135M-Instruct --sft alpaca.jsonl --pairs hh_helpful.jsonl

A useful token is one of a row's own: no pad counts. What rows begin with alike counts for each, though ours computes
it once: the figures compare the time that the same rows take. Each runs as it comes, one after the other, in its own
process. Needs `pip install -r benchmarks/requirements.txt`.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from safe_align.algorithms.preference_loss import PreferenceLoss
from safe_align.algorithms.reference_log_probs import with_reference
from safe_align.algorithms.supervised import Supervised
from safe_align.datasets.mixture import build
from safe_align.datasets.packing import Batches
from safe_align.datasets.raw.jsonl import JsonLines
from safe_align.engine import OptimizerOptions, Placement, can_bf16
from safe_align.finetune.loss import sft_loss
from safe_align.generation import generate
from safe_align.logger import Logger
from safe_align.loop import take_step
from safe_align.losses import LOSSES, needs_of
from safe_align.models.loading import load_policy, load_tokenizer
from safe_align.models.score import load_score_model
from safe_align.placing import make_engine
from safe_align.sampling import Sampling
from safe_align.templates import Template
from safe_align.values.losses import ranking_loss
from safe_align.values.scoring import Moments, ScoreLoss

BATCH, LENGTH = 8, 512


def ours(args: argparse.Namespace, name: str, spec: str) -> float:
    """Useful tokens a second of our training, optimizer and all; DPO's reference has been read before."""
    tokenizer, placement = load_tokenizer(args.model, '--model'), Placement(bf16=can_bf16())
    kind = 'supervised' if name == 'SFT' else 'preference'
    data = build([f'jsonl:{args.rows}/-1:{spec}'], kind, Template(tokenizer), LENGTH, seed=0)
    options = OptimizerOptions(1e-6, 0.0, 'constant', 0.0, 1.0, 100)
    if name == 'SFT':
        model, function = load_policy(args.model), sft_loss
    elif name == 'DPO':
        with tempfile.TemporaryDirectory() as folder, closing(Logger(Path(folder), name, 'none')) as logger:
            data = with_reference(data, args.model, placement, args.micro_batch_tokens, logger)
        loss = LOSSES['dpo']()
        model, function = load_policy(args.model), PreferenceLoss('dpo', loss, needs_of(type(loss), 'dpo'))
    else:
        model = load_score_model(args.model, 'reward', '--model', tokenizer, fresh=True)
        function = ScoreLoss(lambda a, b, *_: (ranking_loss(a, b), {}), Moments('reward', None), False, False)
    algorithm = Supervised(make_engine(model, placement, options), function)
    batches = Batches(data, BATCH, args.micro_batch_tokens)
    take_step(algorithm, batches.step(0))
    started = time.perf_counter()
    for step in range(batches.steps_per_epoch):
        take_step(algorithm, batches.step(step))
    return float(data.lengths.sum()) / (time.perf_counter() - started)


def rows_for_trl(spec: str, count: int, name: str) -> Any:
    """The same rows in TRL's conversational form."""
    from datasets import Dataset

    raw = JsonLines(spec)
    said = lambda role, text: [{'role': role, 'content': text}]  # noqa: E731
    rows = []
    for sample in (raw[n] for n in range(len(raw))):
        turns = [sample['input']] if isinstance(sample['input'], str) else list(sample['input'])
        prompt = [m for n, turn in enumerate(turns) for m in said('assistant' if n % 2 else 'user', turn)]
        if name == 'SFT':
            rows.append({'prompt': prompt, 'completion': said('assistant', sample['answer'])})
        else:
            rows.append(
                {'prompt': prompt}
                | {k: said('assistant', sample[a]) for k, a in (('chosen', 'answer'), ('rejected', 'other_answer'))}
            )
    return Dataset.from_list(rows[:count])


def trl(args: argparse.Namespace, name: str, spec: str) -> float:
    """The same of TRL's trainer, as it comes."""
    import trl as peer

    rows = rows_for_trl(spec, args.rows, name)
    with tempfile.TemporaryDirectory() as folder:
        common = {
            'output_dir': folder, 'per_device_train_batch_size': BATCH, 'num_train_epochs': 1, 'report_to': 'none',
            'max_length': LENGTH, 'save_strategy': 'no', 'learning_rate': 1e-6,
            'use_cpu': not torch.cuda.is_available(),
        }  # fmt: skip
        config = getattr(peer, f'{name}Config')(**common)
        trainer = getattr(peer, f'{name}Trainer')(model=args.model, args=config, train_dataset=rows)
        tokens = sum(map(tokens_of, trainer.train_dataset))
        seconds = trainer.train().metrics['train_runtime']
    return tokens / seconds


def tokens_of(row: dict[str, Any]) -> int:
    """Of a row as TRL's trainers have it: one sequence, or two, which DPO keeps apart from their prompt."""
    if 'input_ids' in row:
        return len(row['input_ids'])
    prompt = len(row.get('prompt_ids', ()))
    return sum(min(prompt + len(row[side]), LENGTH) for side in ('chosen_ids', 'rejected_ids'))


def prompts_of(args: argparse.Namespace) -> list[list[int]]:
    """The prompts of 64 rows."""
    template = Template(load_tokenizer(args.model, '--model'))
    data = build([f'jsonl:64/-1:{args.sft}'], 'prompt', template, LENGTH, seed=0)
    return [template.prompt(turns) for turns in data.turns()]


def generation(args: argparse.Namespace) -> float:
    """New tokens a second of ours, sampling 64 tokens for each of 64 prompts in bfloat16."""
    prompts, engine = prompts_of(args), make_engine(load_policy(args.model), Placement(bf16=can_bf16()))

    def run() -> None:
        with engine.placement.compute():
            generate(engine.module, prompts, Sampling(64), [])

    return 64 * len(prompts) / best_of(run, 2)


def generation_of_transformers(args: argparse.Namespace) -> float:
    """The same of `model.generate`, in bfloat16 weights, padded on the left."""
    prompts = prompts_of(args)
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])

    def run() -> None:
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=mask, do_sample=True, max_new_tokens=64, min_new_tokens=64, pad_token_id=0
            )

    return 64 * len(prompts) / best_of(run, 2)


def apart(function: Callable[..., float], *args: Any) -> float:
    """What a function returns from a new process: no setting or warm cache of one reaches the other."""
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def best_of(call: Callable[[], None], times: int) -> float:
    """The shortest time of several."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def peak() -> float:
    """bfloat16 GFLOP/s of a large matrix product, which bounds everything here."""
    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    return 2 * 2048**3 / best_of(lambda: torch.mm(a, b), 5) / 1e9


def tell(name: str, mine: float, peer: str, theirs: float, asked: float) -> None:
    """One figure, beside its peer's."""
    ratio = mine / theirs
    print(
        f'{name:11} ours {mine:6.0f} tok/s   {peer} {theirs:6.0f} tok/s   ratio {ratio:5.2f} (asked: {asked})',
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True)
    parser.add_argument('--sft', required=True, help='rows that jsonl reads, for SFT and as prompts')
    parser.add_argument('--pairs', required=True, help='pairs that jsonl reads')
    parser.add_argument('--rows', type=int, default=80)
    parser.add_argument('--micro_batch_tokens', type=int, default=4096)
    parser.add_argument('--only', nargs='+', default=['SFT', 'Reward', 'DPO', 'generation'])
    args = parser.parse_args()
    args.sft, args.pairs = str(Path(args.sft)), str(Path(args.pairs))
    print(f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, '
          f'bfloat16 peak {peak():.0f} GFLOP/s')  # fmt: skip
    for name, spec, asked in (('SFT', args.sft, 4.0), ('Reward', args.pairs, 2.5), ('DPO', args.pairs, 4.0)):
        if name in args.only:
            mine, theirs = (apart(function, args, name, spec) for function in (ours, trl))
            tell(name, mine, 'TRL', theirs, asked)
    if 'generation' in args.only:
        mine, theirs = (apart(function, args) for function in (generation, generation_of_transformers))
        tell('generation', mine, 'generate', theirs, 1.5)


if __name__ == '__main__':
    main()
