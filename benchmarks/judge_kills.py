"""What a judge is paid for when its run is killed: the stage gpt4, killed at random moments and started again.

python benchmarks/judge_kills.py [--comparisons 200] [--kills 20]

The judge is an OpenAI-compatible server in a process of its own. Each comparison is two questions, one for each order,
16 of them under way at once. SIGKILL ends the stage at a random moment: after a random number of answers, or at a
random time after its start; the same command starts it again. Then what the server was asked and what it answered is
counted, and eval.jsonl and summary.json are compared with those of a run that nobody killed. Exit 1 unless each
question was asked once, was answered once, and was written down once, and the results are the same to the byte.

A second series kills the courier with the stage, as a loss of power does: what is under way then is lost, which no
program can help. It is shown, and asked for nothing but the same results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))  # whose processes start in a tenth of a second

from forks import Forks, Stage

from safe_align.online.records import Drawn, row_of

STAGE = 'safe_align.evaluate.gpt4'
CLOCK = 0.2  # of the kills come by the clock, within START seconds: before the first question, often
START = 1.5
PATIENCE = 120.0
FILES = ('eval.jsonl', 'summary.json')


@dataclass
class Found:
    """What came of a series."""

    kills: int
    counts: dict[str, int]  # as the server tells
    journalled: int
    journalled_twice: int
    is_same: bool

    def is_met(self, answers: int) -> bool:
        """Whether each answer was asked for, given and written down once."""
        once = [self.counts['begun'], self.counts['delivered'], self.journalled] == [answers] * 3
        return self.is_same and once and self.counts['begun_twice'] == self.journalled_twice == 0


def main() -> int:
    """Kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--comparisons', type=int, default=200)
    parser.add_argument('--kills', type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        forks = Forks(Path(folder))
        try:
            found = {
                who: series(forks, Path(folder) / str(is_all), args.comparisons, args.kills, is_all=is_all)
                for who, is_all in (('the stage', False), ('the stage and its courier', True))
            }
        finally:
            forks.close()
    report(found, 2 * args.comparisons)
    alone, together = found.values()
    return 0 if alone.is_met(2 * args.comparisons) and together.is_same else 1


def series(forks: Forks, folder: Path, comparisons: int, kills: int, *, is_all: bool = False) -> Found:
    """A run that is killed so many times, with all its processes or alone, and one that is not."""
    folder.mkdir()
    sides = [_responses(folder / side, side, comparisons) for side in ('red', 'blue')]
    outs = folder / 'killed', folder / 'whole'
    with judge() as (url, counts):
        call = (STAGE, '--responses', *sides, '--judge_url', url, '--log_type', 'none', '--output_dir')
        _ends(forks.start(*call, outs[1]))
        before, draw = counts(), random.Random(0)
        assert before['begun'] == before['delivered'] == 2 * comparisons
        for left in range(kills, 0, -1):
            _kill(forks.start(*call, outs[0]), outs[0], draw, (2 * comparisons, left), is_all)
        _ends(forks.start(*call, outs[0]))
        after = {name: value - before[name] for name, value in counts().items()}
    keys = [json.loads(line)['key'] for line in (outs[0] / 'judgements.jsonl').read_bytes().splitlines()]
    same = all((outs[0] / name).read_bytes() == (outs[1] / name).read_bytes() for name in FILES)
    # each text was asked once by the whole run, so that what else was asked twice is one more of it
    again = {name: after[name] - 2 * comparisons for name in ('begun_twice', 'paid_twice')}
    return Found(kills, {**after, **again}, len(keys), len(keys) - len(set(keys)), same)


@contextlib.contextmanager
def judge() -> Iterator[Any]:
    """A server's URL, and a function that asks for its counts."""
    server = subprocess.Popen(
        [sys.executable, Path(__file__).parent / 'killing' / 'judge_server.py'], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    read, write = server.stdout, server.stdin

    def counts() -> dict[str, int]:
        write.write('\n')
        write.flush()
        return json.loads(read.readline())

    try:
        yield read.readline().strip(), counts
    finally:
        write.close()
        server.wait()


def _responses(place: Path, side: str, count: int) -> Path:
    """What `safe_align.online.sample` would leave."""
    rows = [row_of([f'Question {n}?'], Drawn(0, 0, f'{side} {n}', None, None, True), 0, {}) for n in range(count)]
    place.mkdir()
    (place / 'responses.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return place


def _ends(stage: Stage) -> None:
    if stage.wait():
        raise SystemExit(stage.said)


def _kill(stage: Stage, out: Path, draw: random.Random, sizes: Sequence[int], is_all: bool) -> None:
    """At a random moment, such that about as many answers are left to each of the kills that are left."""
    answers, left = sizes
    have, end = _answers(out), time.monotonic() + PATIENCE
    wanted = have + draw.randint(0, max(0, 2 * (answers - have) // (left + 1) - 1))  # fewer than all
    by_clock = draw.random() < CLOCK
    until = time.monotonic() + draw.uniform(0, START) if by_clock else end
    while _answers(out) < wanted and time.monotonic() < until:
        time.sleep(0.0005)
    if time.monotonic() > end:
        raise SystemExit(stage.said)
    time.sleep(0 if by_clock else draw.uniform(0, 0.03))
    others = _children(stage.pid) if is_all else []
    for pid in (stage.pid, *others):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if (code := stage.wait()) != -signal.SIGKILL:
        raise SystemExit(f'the stage ended with {code} before it was killed:\n{stage.said}')


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def _answers(out: Path) -> int:
    path = out / 'judgements.jsonl'
    return path.read_bytes().count(b'\n') if path.exists() else 0


def report(found: dict[str, Found], answers: int) -> None:
    """Print the table."""
    heads = ('killed', 'kills', 'requests begun', 'begun twice', 'answers delivered', 'paid twice', 'written down',
             'same results')  # fmt: skip
    print(f'| {" | ".join(heads)} |\n|{"---|" * len(heads)}')
    for who, one in found.items():
        counts = [one.counts[name] for name in ('begun', 'begun_twice', 'delivered', 'paid_twice')]
        print(f'| {" | ".join(map(str, (who, one.kills, *counts, one.journalled, "yes" if one.is_same else "no")))} |')
    print(f'\nasked, of the stage alone: {answers} begun, delivered and written down, none twice, and the same results')


if __name__ == '__main__':
    raise SystemExit(main())
