"""The benchmark of samplers on stories: a run on a tiny model, and how runs are compared."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from safe_align import functions

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(functions, '_registry', {})
    return lambda name: importlib.import_module(f'sampler_tables.{name}')


def test_a_run_is_read_where_it_was_evaluated_and_not_made_twice(benchmark, tiny, tmp_path, monkeypatch):
    stories, sizes = benchmark('stories'), {'train': 64, 'held_out': 8}

    @functions.score_function
    def letters(turns, response):  # a model that tells no stories has no words of feeling
        return float(len(response))

    learn = ['function:letters' if one == 'function:feelings' else one for one in stories.LEARN]
    monkeypatch.setattr(stories, 'LEARN', [*learn, '--eval_interval', 1])
    found = stories.run_one(0, 'mixp', tiny, tmp_path, sizes)
    assert found.pairs > 0
    assert len(found.kl) == len(found.reward) >= 2
    assert abs(found.kl[0]) < 1e-4
    again = stories.run_one(0, 'mixp', tiny, tmp_path, sizes)
    assert all(np.array_equal(a, b) for a, b in zip(again, found, strict=True))
    assert (tmp_path / 'mixp.log').read_text(encoding='utf-8').count('holds this run, finished') == 1


def test_differences_are_of_the_seeds_that_both_reach(benchmark):
    report = benchmark('report')
    first, second = np.array([1.0, 2.0, 3.0, math.nan]), np.array([0.0, 1.5, math.nan, 0.0])
    assert report.difference(first, second) == '+0.750 [-2.427, +3.927] (2)'
    assert report.difference(first[2:], second[2:]) == '-'
    assert report.average(first) == '2.000 (3)'


def test_a_sampler_s_best_setting_is_one_that_all_seeds_reach(benchmark):
    low, high, far = np.array([[1.0, 5.0], [1.0, 5.0]]), np.array([[2.0, 4.0], [1.0, 4.0]]), np.full((2, 2), 9.0)
    far[0] = math.nan
    assert benchmark('listed').best_of([low, high, far]).tolist() == [[2, 5], [1, 5]]


def test_different_words_of_feeling_count(benchmark):
    rules = importlib.import_module('story_rules')
    texts = ('He ran.', 'A nice day.', 'Sad, so sad, SAD.', 'She was happy and glad, he cried.')
    assert [rules.feelings([], text) for text in texts] == [0, 1, 1, 3]
