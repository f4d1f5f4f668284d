"""Rows after kills: the stages sample and annotate, killed at random moments, started again, and what is left of it.

python benchmarks/kills.py [--kills 500]

A run is a real process. SIGKILL ends it at a random time, after a random number of rows, or as it touches a file of its
directory for the n-th time; after one kill in four the end of its journal is cut off, as if the power had failed. The
same command starts it again, until it ends by itself. Then its rows are those of a run that nobody killed: texts, ids
and feedback to the byte, log-probabilities to 1e-4, since other rows were decoded together. Exit 1 if one is not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))  # whose processes start in a tenth of a second

from forks import Forks
from killing.model import make_model
from killing.rows import FAULTS, faults, rows_of
from killing.runs import PHASES, Task, killed

ROOT = Path(__file__).parents[1]
PROMPTS, TOKENS, LENGTH = 24, 8, 512
SAMPLE, ANNOTATE = 'safe_align.online.sample', 'safe_align.online.annotate'
RULES = """
from safe_align.functions import score_function

@score_function
def share_of_ascii(turns, response):
    return sum(letter.isascii() for letter in response) / (1 + len(response))
"""
HERE = ('--max_length', LENGTH, '--bf16', False, '--log_type', 'none')


@dataclass
class Tally:
    """What has happened to a stage."""

    kills: Counter[str] = field(default_factory=Counter)  # by phase
    torn: int = 0  # journals
    runs: int = 0
    rows: int = 0  # compared
    faults: Counter[str] = field(default_factory=Counter)


def main() -> int:
    """Kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=500, help='of both stages together; 500')
    args = parser.parse_args()
    os.environ['OMP_NUM_THREADS'] = '1'
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        forks = Forks(Path(folder))
        try:
            tallies = kill(forks, tasks(forks, Path(folder)), Path(folder), args.kills)
        finally:
            forks.close()
    report(tallies, time.perf_counter() - started)
    return 1 if any(tally.faults for tally in tallies.values()) else 0


def kill(forks: Forks, todo: dict[str, list[Task]], folder: Path, count: int) -> dict[str, Tally]:
    """As many kills at least, half of them of each stage; by stage."""
    draw, tallies, place = random.Random(0), {stage: Tally() for stage in todo}, folder / 'killed'
    for stage, tally in tallies.items():
        while tally.kills.total() < count / len(todo):
            one(forks, draw.choice(todo[stage]), place, draw, tally)
            shutil.rmtree(place)
    return tallies


def one(forks: Forks, task: Task, place: Path, draw: random.Random, tally: Tally) -> None:
    """A run, to its end."""
    tally.runs += 1
    try:
        for phase, is_torn in killed(forks, task, place, draw):
            tally.kills[phase] += 1
            tally.torn += is_torn
        found = list(faults(place, task.whole))
    except RuntimeError as error:
        found = [('failed', str(error))]
    tally.rows += len(rows_of(task.whole))
    for kind, told in found:
        tally.faults[kind] += 1
        print(f'{task.stage}: {kind}: {told}', flush=True)


def tasks(forks: Forks, folder: Path) -> dict[str, list[Task]]:
    """By stage."""
    model, rules, data = make_model(folder / 'model', LENGTH), folder / 'rules.py', 'examples/starter/train.jsonl'
    rules.write_text(RULES, encoding='utf-8')
    asked = (
        '--model_name_or_path', model, '--datasets', f'jsonl:{PROMPTS}/-1:{ROOT / data}', '--max_new_tokens', TOKENS,
        '--generation_batch_size', 2, *HERE,
    )  # fmt: skip
    drawn = Task(SAMPLE, asked, folder / 'drawn', 2 * PROMPTS).measured(forks)
    judged = (
        '--responses', drawn.whole, '--plugin', rules, '--reward_model_name_or_path', 'function:share_of_ascii', *HERE,
        '--feedback_type',
    )  # fmt: skip
    kinds = ('scalar', 'pairwise', 'pointwise')
    fed = [Task(ANNOTATE, (*judged, kind), folder / kind, 2 * PROMPTS).measured(forks) for kind in kinds]
    return {SAMPLE: [drawn], ANNOTATE: fed}


def report(tallies: dict[str, Tally], seconds: float) -> None:
    """Print the tables."""
    print(f'\n| kills | {" | ".join(PHASES)} | in all |\n|---|{"---|" * (len(PHASES) + 1)}')
    for stage, tally in tallies.items():
        counts = (*(tally.kills[phase] for phase in PHASES), tally.kills.total())
        print(f'| {stage} | {" | ".join(map(str, counts))} |')
    print(f'\n| rows | runs | journals cut | compared | {" | ".join(FAULTS)} |\n|---|{"---|" * (len(FAULTS) + 3)}')
    for stage, tally in tallies.items():
        counts = (tally.runs, tally.torn, tally.rows, *(tally.faults[kind] for kind in FAULTS))
        print(f'| {stage} | {" | ".join(map(str, counts))} |')
    total = sum(tally.kills.total() for tally in tallies.values())
    print(f'\n{total} kills in {seconds:.0f} s; asked: no row lost, doubled or changed, and nothing left behind')


if __name__ == '__main__':
    raise SystemExit(main())
