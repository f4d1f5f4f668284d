"""The study of samplers beside what is asked of it: its numbers on the bandit of the paper, and its time.

python benchmarks/bandit.py [--repeats 3]

Exact feedback has one answer to the digits printed. Empirical figures are means over 20 seeds of the noise, with the
standard deviation of one seed; what is asked are means over 3 seeds, so 4 standard deviations of the difference are
allowed. Asked for: the whole command, both feedbacks, 3 samplers and 20 draws, within 15 s, in the fastest of several
runs, since other work on the machine can only add to it. Exit 1 if one is not met.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from safe_align.bandit.convergence import first_below, noise_floor
from safe_align.bandit.curves import Setting, follow
from safe_align.bandit.rewards import draw
from safe_align.bandit.samplers import WEIGHTS
from safe_align.bandit.study import DEFAULTS
from safe_align.bandit.summary import summarise

ROOT = Path(__file__).parents[1]
SEED, BETA, SEEDS, PAIRS = 1234567, 3.0, 20, 8192
SECONDS = 15.0
EXACT = {  # Param Diff at lr 10, step by step
    'unif': {1: 0.6889, 2: 0.2671, 3: 0.1258, 5: 2.642e-2, 10: 3.561e-3, 20: 3.341e-4, 50: 7.411e-7, 100: 3.761e-11},
    'mix_r': {1: 2.730, 2: 2.126, 3: 1.611, 5: 0.8426, 10: 5.271e-2},
    'mix_p': {1: 0.6889, 2: 0.2916, 3: 4.870e-2, 5: 6.033e-6},
}
ROUNDING = {'mix_r': 20, 'mix_p': 10}  # the step from which on Param Diff is below 1e-14
NEWTON = {'unif': (27, 2, 1.0), 'mix_r': (8, 1, 2.0), 'mix_p': (5, 0, 2.0)}  # median steps to 1e-6, give or take; order
EMPIRICAL = {'unif': (513, 707, 0.0060), 'mix_r': (345, 479, 0.0059), 'mix_p': (402, 532, 0.0055)}
NAMES = ('first step below 0.1', 'first step below 0.05', 'floor')
Row = tuple[str, str, str, bool]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=3, help='of the whole command; 3')
    args = parser.parse_args()
    print('| what | asked | found | met |\n|---|---|---|---|')
    missed = 0
    for rows in (exact(), newton(), empirical(), whole(args.repeats)):
        for what, asked, found, met in rows:
            print(f'| {what} | {asked} | {found} | {"yes" if met else "NO"} |', flush=True)
            missed += not met
    return 1 if missed else 0


def exact() -> Iterator[Row]:
    rewards = draw(SEED, 1, 20)
    for sampler, asked in EXACT.items():
        curve = follow(Setting('exact', 'fixed', sampler, *DEFAULTS['exact']), rewards, BETA, PAIRS, SEED)
        for step, golden in asked.items():
            found = curve.param_diff[step, 0]
            yield (
                f'exact, lr 10, {sampler}, step {step}',
                f'{golden:.3e}',
                f'{found:.3e}',
                f'{found:.3e}' == f'{golden:.3e}',
            )
        if settled := ROUNDING.get(sampler):
            highest = curve.param_diff[settled:].max()
            yield f'exact, lr 10, {sampler}, from step {settled} on', '< 1e-14', f'{highest:.1e}', highest < 1e-14


def newton() -> Iterator[Row]:
    rewards = draw(SEED, 200, 20)
    for sampler, (steps, spread, order) in NEWTON.items():
        curve = follow(Setting('exact', 'newton', sampler, None, 100), rewards, BETA, PAIRS, SEED)
        found = summarise(curve, rewards, BETA)
        median, measured = found['steps_to_1e-6']['median'], found['order']['median']
        what = f"Newton's step, 200 draws, {sampler}"
        yield f'{what}, median steps to 1e-6', f'{steps}', f'{median:.0f}', abs(median - steps) <= spread
        yield f'{what}, order', f'{order:.0f}', f'{measured:.2f}', abs(measured - order) < 0.1


def empirical() -> Iterator[Row]:
    rewards = np.tile(draw(SEED, 1, 20), (SEEDS, 1))
    for sampler in WEIGHTS:
        setting = Setting('empirical', 'fixed', sampler, *DEFAULTS['empirical'])
        curve = follow(setting, rewards, BETA, PAIRS, SEED).param_diff
        measured = (first_below(curve, 0.1), first_below(curve, 0.05), noise_floor(curve))
        for name, asked, found in zip(NAMES, EMPIRICAL[sampler], measured, strict=True):
            form, spread = ('.4f' if name == 'floor' else '.0f'), found.std(ddof=1)
            met = abs(found.mean() - asked) < 4 * spread * math.sqrt(1 / 3 + 1 / SEEDS)
            shown = f'{found.mean():{form}} (sd {spread:{form}}, {found.min():{form}} to {found.max():{form}})'
            yield f'empirical, lr 0.05, {sampler}, {name}', f'{asked:{form}}', shown, met


def whole(repeats: int) -> Iterator[Row]:
    """As a process, start of the interpreter and all; the processor's time leaves out other work on the machine."""
    seconds, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            command = [sys.executable, '-m', 'safe_align.bandit', '--output_dir', f'{folder}/{number}']
            started, used = time.perf_counter(), os.times()
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
            processor.append(sum(os.times()[2:4]) - sum(used[2:4]))
    found = f'{min(seconds):.1f} s (slowest {max(seconds):.1f} s; {min(processor):.1f} s of the processor)'
    yield f'the whole command, {os.cpu_count()} cores', f'{SECONDS:.0f} s', found, min(seconds) <= SECONDS


if __name__ == '__main__':
    raise SystemExit(main())
