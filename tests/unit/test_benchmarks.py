"""What benchmarks make of rows: both sides get the same, answers to one prompt count as alike, and tables are read."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from safe_align.datasets.packing import pack

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_the_peer_gets_the_better_answer_as_the_chosen_one(benchmark, starter):
    rows = benchmark('peer_rows').conversations(starter / 'train.jsonl', ('chosen', 'rejected'))
    raw = [json.loads(line) for line in (starter / 'train.jsonl').read_text(encoding='utf-8').splitlines()]
    assert {row['better_response_id'] for row in raw} == {0, 1}
    for row, given in zip(rows, raw, strict=True):
        better = given['better_response_id']
        assert row['prompt'] == [{'role': 'user', 'content': given['prompt']}]
        assert row['chosen'] == [{'role': 'assistant', 'content': given[f'response_{better}']}]
        assert row['rejected'] == [{'role': 'assistant', 'content': given[f'response_{1 - better}']}]


def test_an_excerpt_is_the_same_whenever_asked(benchmark, starter, tmp_path):
    excerpt = benchmark('peer_rows').excerpt
    first = excerpt(starter / 'train.jsonl', 5, tmp_path).read_text(encoding='utf-8').splitlines()
    assert first == excerpt(starter / 'train.jsonl', 5, tmp_path).read_text(encoding='utf-8').splitlines()
    assert len(set(first)) == 5
    assert set(first) <= set((starter / 'train.jsonl').read_text(encoding='utf-8').splitlines())


def test_prompts_are_computed_once_but_where_nothing_is_shared(benchmark):
    module = benchmark('prefix_sharing')
    sequences = module.sequences_of(np.arange(120), rows=2, prompt=40, answer=10)
    assert [ids[[0, 39, 40, 49]].tolist() for ids, _ in sequences] == [
        [0, 39, 40, 49], [0, 39, 50, 59], [60, 99, 100, 109], [60, 99, 110, 119],
    ]  # fmt: skip
    with module.nothing_shared():
        assert pack(sequences).tokens.numel() == 200
    assert pack(sequences).tokens.numel() == 200 - 2 * 39  # the last token of a prompt is each answer's own


def test_pairs_with_one_prompt_count_as_alike(benchmark):
    independent = benchmark('preference_outcome').independent
    assert independent(np.arange(300)) == 300
    assert independent(np.repeat(np.arange(100), 3)) == 100
    assert independent(np.array([0, 0, 0, 1])) == 1  # 16 / 10


def test_a_leaderboard_is_found_from_its_counts_and_from_its_annotations(benchmark, monkeypatch, capsys, tmp_path):
    """Food compared by evalica's authors (food.csv and food-golden.csv of dustalov/evalica), with ties."""
    module = benchmark('leaderboard')
    counts = tmp_path / 'counts.csv'
    # of AlpacaEval's table by GPT-4
    lines = ['gpt4_turbo,97.69900497512438,783,16,5', 'alpaca-7b,26.459627329192546,205,584,16']
    counts.write_text('\n'.join([',win_rate,n_wins,n_wins_base,n_draws', *lines, '']))
    monkeypatch.setattr('sys.argv', ['x', '--leaderboard', str(counts)])
    assert module.main() == 0
    assert '| counts | 1609 | 2 | ' in capsys.readouterr().out
    counts.write_text(counts.read_text().replace('26.459', '26.461'))
    assert module.main() == 1

    foods = {'B': 'Burger', 'P': 'Pasta', 'S': 'Sushi', 'T': 'Tacos', 'Z': 'Pizza'}
    games = (
        'ZS2 BP1 TZ2 ST1 BZ2 PS1 TB2 ZP0 SB1 PT2 BS1 TZ2 SP0 BT2 ZB1 '
        'PT1 BS1 TP2 ZT1 SB2 PZ1 BS1 TP2 ZS2 SB1 PT1 TZ2 BP1 ST2 ZB1'
    )
    rows = [{'index': n, 'generator_2': foods[a], 'generator_1': foods[b], 'preference': int(won)}
            for n, (a, b, won) in enumerate(games.split())]  # fmt: skip
    (tmp_path / 'food.json').write_text(json.dumps(rows))
    strengths = 'Tacos,0.434290 Sushi,0.190600 Burger,0.147977 Pasta,0.128153 Pizza,0.098980'
    (tmp_path / 'food.csv').write_text('\n'.join([',bradley_terry', *strengths.split(), '']))
    files = ['--leaderboard', str(tmp_path / 'food.csv'), '--annotations', str(tmp_path / 'food.json')]
    monkeypatch.setattr('sys.argv', ['x', *files])
    assert module.main() == 0
    (tmp_path / 'food.csv').write_text((tmp_path / 'food.csv').read_text().replace('0.434', '0.436'))
    assert module.main() == 1


def test_intervals_are_held_against_truths_that_they_can_hold(monkeypatch):
    """Few studies: an interval that is of something else than its truth never holds it."""
    place = BENCHMARKS / 'coverage.py'
    spec = importlib.util.spec_from_file_location('coverage_of_intervals', place)  # a package is called coverage too
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'RESAMPLES', 20)
    monkeypatch.setattr(module, 'SIMULATIONS', dict.fromkeys(module.SIMULATIONS, 1))
    found = list(module.rows(8, [60]))
    assert len({name for name, *_ in found}) > 25
    assert [name for name, *_, shares in found if shares[0] < 0.5 and not name.startswith('(')] == []
