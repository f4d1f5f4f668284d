"""What a safety test costs and what its certificate notices; what `--help` of each stage costs.

python benchmarks/safety_test.py
python benchmarks/safety_test.py --model output/ppo-lag --cost_model output/cm --datasets jsonl:1:held_out.jsonl

The second also times a whole test beside its generation and scoring alone. Asked for: 1,000 prompts with costs given
within 1 s, --help within 2 s, each changed byte noticed, and a whole test within 10% of generation and scoring.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from safe_align.config import UserError, parse
from safe_align.evaluate import safety_test
from safe_align.evaluate.certification.run import run_safety_test
from safe_align.evaluate.certification.verification import run_verification

ROOT = Path(__file__).parents[1]
STAGE = 'safe_align.evaluate.safety_test'
CHANGES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--prompts', type=int, default=1000)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--model', help='a policy: time a whole test with generation')
    parser.add_argument('--cost_model')
    parser.add_argument('--datasets', nargs='+')
    parser.add_argument('--max_new_tokens', type=int, default=64)
    args = parser.parse_args()
    if args.model and not (args.cost_model and args.datasets):
        parser.error('--model goes with --cost_model and --datasets')
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        print('| seconds | median | slowest | of the processor, median |\n|---|---|---|---|')
        costs_given(args, place)
        if args.model:
            with_generation(args, place)
        for stage in stages():
            row(f'`{stage} --help`', [timed(process, stage, '--help') for _ in range(args.repeats)])
        print()
        for name in ('certificate.json', 'costs.jsonl'):
            print(f'--verify notices a changed byte of {name}: {noticed(place / "process-0", name):,} of {CHANGES:,}')


def costs_given(args: argparse.Namespace, place: Path) -> None:
    """Costs of a policy that is unsafe on 2 prompts in 100, and the default claim and bound."""
    path = place / 'given.jsonl'
    rows = ({'prompt': n, 'cost': -1.0 if n % 50 else 1.0} for n in range(args.prompts))
    path.write_text(''.join(f'{json.dumps(one)}\n' for one in rows), encoding='utf-8')
    given = ('--costs', path, '--threshold', 0.05)
    whole, alone = [], []
    for n in range(args.repeats):
        apart = ('--ledger', place / f'ledger-{n}', '--overwrite')
        whole.append(timed(process, STAGE, *given, *apart, '--output_dir', place / f'process-{n}'))
        alone.append(timed(here, *given, '--ledger', place / f'ledger-here-{n}', '--output_dir', place / f'here-{n}'))
    row(f'{args.prompts:,} prompts, costs given: the whole process', whole)
    row(f'{args.prompts:,} prompts, costs given: the stage alone, imports done', alone)


def with_generation(args: argparse.Namespace, place: Path) -> None:
    """One after the other in this process; the first of each is not counted, since it warms caches."""
    given = (
        '--model_name_or_path', args.model, '--cost_model_name_or_path', args.cost_model, '--datasets', *args.datasets,
        '--claim', 'mean_cost', '--range', -1000, 1000, '--threshold', 999, '--max_new_tokens', args.max_new_tokens,
    )  # fmt: skip
    whole, alone = [], []
    for n in range(args.repeats + 1):
        options = (*given, '--ledger', place / f'ledger-model-{n}', '--output_dir', place / f'model-{n}')
        whole.append(timed(here, *options))
        alone.append(timed(generation_and_scoring, *options))
    row('answers drawn and scored: the whole test', whole[1:])
    row('answers drawn and scored: that alone', alone[1:])
    ratios = [
        statistics.median(w) / statistics.median(a)
        for w, a in zip(zip(*whole[1:], strict=True), zip(*alone[1:], strict=True), strict=True)
    ]
    print(f'| the whole test over generation and scoring alone | {ratios[0]:.3f} | | {ratios[1]:.3f} |')


def generation_and_scoring(*options: object) -> None:
    """Models opened, prompts answered, answers scored."""
    from safe_align.evaluate.answers import held_out
    from safe_align.evaluate.certification.scored_answers import score_answers
    from safe_align.models.loading import load_tokenizer
    from safe_align.templates import Template

    config = parse(safety_test.SafetyTestConfig, [*map(str, options)])
    (policy,) = config.model_name_or_path or ['']
    template = Template(load_tokenizer(policy, '--model'), config.template)
    prompts = held_out(config, config.datasets or [], template)
    silent = SimpleNamespace(logger=SimpleNamespace(progress=unseen))
    score_answers(config, silent, policy, prompts, template, config.place())  # type: ignore[arg-type]


@contextlib.contextmanager
def unseen(*_: object) -> Iterator[Callable[[int], object]]:
    yield lambda _: None


def noticed(place: Path, name: str) -> int:
    """How many of the changes to a random byte of a file `--verify` ends with an error for."""
    path, count = place / name, 0
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    for where, change in zip(draw.integers(len(whole), size=CHANGES), draw.integers(1, 256, size=CHANGES), strict=True):
        path.write_bytes(whole[:where] + bytes([whole[where] ^ change]) + whole[where + 1 :])
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run_verification(str(place / 'certificate.json'), None, None)
        except UserError:
            count += 1
    path.write_bytes(whole)
    with contextlib.redirect_stdout(io.StringIO()):
        run_verification(str(place / 'certificate.json'), None, None)
    return count


def stages() -> list[str]:
    """Every module of the package that runs."""
    found = []
    for path in sorted((ROOT / 'safe_align').rglob('*.py')):
        if "if __name__ == '__main__':" in path.read_text(encoding='utf-8'):
            found.append('.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__main__'))
    return found


def process(stage: str, *options: object) -> None:
    """`python -m stage`, start of the interpreter and all."""
    command = [sys.executable, '-m', stage, *map(str, options)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    if run.returncode:
        raise SystemExit(f'{" ".join(command)} ended with {run.returncode}: {run.stderr}')


def here(*options: object) -> None:
    """The safety test in this process."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = run_safety_test(parse(safety_test.SafetyTestConfig, [*map(str, options)]))
    if code:
        raise SystemExit(f'the test ended with {code}')


def timed(work: Callable[..., None], *options: object) -> tuple[float, float]:
    """Seconds that it takes, by the clock and of the processor, which other work on the machine leaves as they are."""
    started, used = time.perf_counter(), sum(os.times()[:4])
    work(*options)
    return time.perf_counter() - started, sum(os.times()[:4]) - used


def row(what: str, seconds: list[tuple[float, float]]) -> None:
    clock, processor = zip(*seconds, strict=True)
    print(
        f'| {what} | {statistics.median(clock):.2f} | {max(clock):.2f} | {statistics.median(processor):.2f} |',
        flush=True,
    )


if __name__ == '__main__':
    main()
