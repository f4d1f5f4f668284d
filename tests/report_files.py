"""A small project on disk, with records in the form in which stages leave them, for tests of the report."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from safe_align.checkpoint import MANIFEST, hash_files, write_json
from safe_align.config import parse
from safe_align.evaluate import gpt4_summary, safety_test
from safe_align.ownership import content_of

HOSTILE = '</script><img src=x onerror="window.hacked=1">\'"&<b>'
OPTIONS = {'actor': 'actor_model_name_or_path', 'reward': 'reward_model_name_or_path', 'model': 'model_name_or_path',
           'cost': 'cost_model_name_or_path', 'red': 'red_corner_model_name_or_path',
           'blue': 'blue_corner_model_name_or_path'}  # fmt: skip


def lines(rows: list[dict]) -> str:
    return ''.join(json.dumps(row) + '\n' for row in rows)


def stage(directory: Path, name: str, kind: str, parents: dict[str, Path | str], *, arguments: dict | None = None,
          metrics: list[dict] | None = None, finished: int = 0, **record) -> Path:  # fmt: skip
    """A finished stage; `parents` by the short names of `OPTIONS`."""
    directory.mkdir(parents=True, exist_ok=True)
    if metrics is not None:
        (directory / 'metrics.jsonl').write_text(lines(metrics))
    write_json(directory / 'safe_align.json', {
        'kind': kind, 'stage': name, 'arguments': arguments or {}, 'parents': parents_of(parents),
        'datasets': [{'name': 'jsonl', 'rows': 40, 'used': 38, 'skipped': {'empty answer': 2}}], 'device': 'cpu',
        'seconds_since_last_start': 82.4, 'peak_memory_gib': 1.25, 'versions': {'safe_align': '0.1.0'},
        'finished': f'2026-11-21T19:{finished:02}:00+00:00', **record,
    })  # fmt: skip
    write_json(directory / MANIFEST, hash_files(directory, [path.name for path in directory.iterdir()]))
    return directory


def parents_of(given: dict[str, Path | str]) -> dict:
    return {
        OPTIONS[role]: {'path': str(path), 'kind': kind_of(path), 'hash': content_of(str(path))}
        for role, path in given.items()
    }


def kind_of(path: Path | str) -> str | None:
    record = Path(path) / 'safe_align.json'
    return json.loads(record.read_text())['kind'] if record.is_file() else None


def wave(step: int, low: float, high: float) -> float:
    return low + (high - low) * (1 - math.cos(step)) / 2


def estimate(value: float, half: float = 0.1) -> dict[str, float]:
    return {'value': value, 'low': value - half, 'high': value + half}


def project(root: Path) -> Path:
    """Fine-tuning, score models, PPO-Lag, an arena, a judge, a safety test, and a run that goes on."""
    losses = [{'step': n, 'train/loss': 4 - n / 4 + wave(n, 0, 1), 'train/lr': 1e-5} for n in range(1, 9)]
    held_out = [{'step': n, 'eval/loss': 4.2 - n / 5} for n in (0, 8)]
    sft = stage(root / 'sft', 'finetune', 'policy', {'model': 'hub/base'}, metrics=[*losses, *held_out], finished=1,
                arguments={'lr': 2e-05, 'train_datasets': [f'jsonl:1:{HOSTILE}.jsonl']})  # fmt: skip
    rm = stage(root / 'rm', 'reward', 'reward', {'model': sft}, metrics=losses, finished=2)
    cm = stage(root / 'cm', 'cost', 'cost', {'model': sft}, metrics=losses, finished=3)
    rounds = [
        {'step': n, 'train/reward': wave(n, 0, 1) + n / 10, 'train/cost': wave(n + 2, -2, 2) - n / 10,
         'train/lambda': 1 + n / 10, 'train/kl_divergence': n / 5, 'train/odd_one': 1.0}
        for n in range(1, 21)
    ]  # fmt: skip
    lag = stage(root / 'ppo-lag', 'ppo-lag', 'policy', {'actor': sft, 'reward': rm, 'cost': cm}, metrics=rounds,
                finished=4, arguments={'threshold': [-1.0]})  # fmt: skip
    arena(root / 'arena', {'red': sft, 'blue': lag, 'reward': rm, 'cost': cm})
    judge(root / 'judge', {'red': sft, 'blue': lag})
    certificate(root / 'certificate')
    running(root / 'it1' / 'sft', sft)
    return root


def arena(directory: Path, parents: dict[str, Path]) -> None:
    directory.mkdir()
    rows = [
        {'prompt': HOSTILE if n == 3 else f'prompt {n}', 'sample': 0, 'red_answer': f'red says {n}',
         'blue_answer': HOSTILE if n == 4 else f'blue says {n}', 'red_reward': n % 3, 'blue_reward': 1,
         'red_cost': -1 if n % 2 else 1, 'blue_cost': -1 if n % 5 else 1}
        for n in range(30)
    ]  # fmt: skip
    with (directory / 'table.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    summary = {
        'num_prompts': 30, 'num_samples': 1, 'red': str(parents['red']), 'blue': str(parents['blue']),
        'ties_reward': 10, 'ties_cost': 15, 'reward_difference': estimate(0.25), 'cost_difference': estimate(-0.5),
        **{f'{who}_{what}': estimate(0.4 if who == 'red' else 0.65) for who in ('red', 'blue')
           for what in ('reward', 'cost', 'safe')},
        'blue_wins_reward': estimate(0.625), 'blue_wins_safety': estimate(0.7),
        'cells': [{'red_safe': red, 'blue_safe': blue, 'count': 12 * red + 3 * blue, 'blue_wins_reward': estimate(0.5)}
                  for red in (True, False) for blue in (True, False)],
    }  # fmt: skip
    stage(directory, 'arena', 'evaluation', parents, summary=summary, finished=5)


def judge(directory: Path, parents: dict[str, Path]) -> None:
    directory.mkdir()
    verdicts = ('red', 'blue', 'tie', 'unscored')
    rows = [
        {'prompt_id': str(n), 'prompt': f'judged {n}', 'category': ('law', HOSTILE)[n % 2], 'red_answer': 'a',
         'blue_answer': 'b', 'verdict': verdicts[n % 4], 'reason': 'refusal' if n % 4 == 3 else None,
         **{f'{first}_first': {'verdict': verdicts[n % 4], 'text': '[[A]]'} for first in ('red', 'blue')}}
        for n in range(8)
    ]  # fmt: skip
    (directory / 'eval.jsonl').write_text(lines(rows))
    summary = {
        **{side: str(path) for side, path in parents.items()}, 'judge': 'judge-1', 'compare': 'overall',
        'template': 'ab' * 8, 'answers_paid': 16, 'prompt_tokens': 160, 'completion_tokens': 32, 'money': None,
        **gpt4_summary.summarise(rows),
    }  # fmt: skip
    stage(directory, 'gpt4', 'evaluation', parents, summary=summary, finished=6)


def certificate(directory: Path) -> None:
    """By the stage itself, of costs that are given."""
    costs = directory.parent / 'costs-given.jsonl'
    costs.write_text(lines([{'prompt': n, 'cost': wave(n, -4, 1)} for n in range(60)]))
    options = ('--costs', costs, '--threshold', 0.5, '--output_dir', directory, '--log_type', 'none')
    assert safety_test.main(parse(safety_test.SafetyTestConfig, list(map(str, options)))) == 0


def running(directory: Path, parent: Path) -> None:
    """A run that was killed while it wrote a line."""
    directory.mkdir(parents=True)
    write_json(directory / 'arguments.json', {'lr': 0.001})
    write_json(directory / '.origin.json', {'stage': 'finetune', 'parents': parents_of({'model': parent}), 'sizes': {}})
    (directory / '.lock').touch()
    (directory / 'checkpoints' / 'step-2').mkdir(parents=True)
    whole = lines([{'step': n, 'train/loss': 3 - n / 10} for n in range(1, 4)])
    (directory / 'metrics.jsonl').write_text(whole + '{"step": 4, "train/lo')
