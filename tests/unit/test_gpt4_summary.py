"""What is said of a judge's verdicts, by hand."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from scipy import stats

from safe_align.datasets.raw.jsonl import JsonLines
from safe_align.evaluate.gpt4_summary import render, summarise
from safe_align.evaluate.statistics import mean, score_rate, share

ABOUT = {
    'red': 'one', 'blue': 'two', 'judge': 'j', 'compare': 'overall', 'answers_paid': 8, 'prompt_tokens': 80,
    'completion_tokens': 8, 'money': None,
}  # fmt: skip


def row(prompt: int, verdict: str, orders: tuple = (), category: str | None = None, **more) -> dict:
    """`orders` are the verdicts with red shown first, and with blue shown first."""
    one, two = ({'verdict': order, 'text': ''} for order in orders or (verdict, verdict))
    return {
        'prompt_id': str(prompt), 'category': category, 'red_answer': 'rrrr', 'blue_answer': 'bb', 'verdict': verdict,
        'reason': None, 'red_first': one, 'blue_first': two, **more,
    }  # fmt: skip


ROWS = [
    row(0, 'blue', category='x'),
    row(1, 'red', category='x', blue_answer=' '),
    row(2, 'tie', ('red', 'blue'), category='y'),  # the place won
    row(3, 'unscored', (None, 'blue'), category='y', reason='no verdict'),
    row(4, 'blue', category='y'),
    {**row(5, 'tie', blue_answer='rrrr', reason='identical answers'), 'red_first': None, 'blue_first': None},
]


def test_counts_and_rates_by_hand():
    told = summarise(ROWS)
    assert (told['num_prompts'], told['num_pairs']) == (6, 6)
    assert [told[name] for name in ('blue_wins', 'red_wins', 'ties', 'unscored')] == [2, 1, 2, 1]
    assert told['blue_win_rate'] == {**score_rate([1, 0, 0.5, 1, 0.5]).told(), 'n': 5}
    assert told['p_value'] == pytest.approx(stats.binomtest(2, 3).pvalue)
    assert told['unscored_reasons'] == {'no verdict': 1}
    assert (told['identical'], told['red_empty'], told['blue_empty']) == (1, 0, 1)
    assert told['blue_characters'] == pytest.approx({**mean([2, 1, 2, 2, 2, 4]).told(), 'n': 6})
    assert told['red_characters'] == {'value': 4, 'low': 4, 'high': 4, 'n': 6}
    assert told['places'] == {
        'num_pairs': 4, 'consistent': share(3, 4).told(), 'first_won_both': 1, 'last_won_both': 0,
        'num_decided_answers': 8, 'first_won': 5,  # each consistent win has the winner first once
    }  # fmt: skip
    x, y = told['categories']
    assert (x['category'], x['num_prompts'], x['blue_win_rate']['value']) == ('x', 2, 0.5)
    assert (y['num_prompts'], y['blue_win_rate']['n'], y['blue_win_rate']['value'], y['unscored']) == (3, 2, 0.75, 1)


def test_samples_of_a_prompt_are_averaged_and_unscored_ones_have_no_share_in_it():
    rows = [
        row(0, 'blue'),
        row(0, 'unscored', reason='r'),
        row(0, 'tie'),
        row(1, 'red'),
        row(2, 'unscored', reason='r'),
    ]
    told = summarise(rows)
    assert told['blue_win_rate'] == {**score_rate([0.75, 0]).told(), 'n': 2}
    assert (told['num_prompts'], told['num_pairs']) == (3, 5)
    twice = [row(0, 'tie', ('red', 'blue')), row(0, 'blue'), row(1, 'red')]
    assert summarise(twice)['places']['consistent'] == score_rate([0.5, 1]).told()


def test_nothing_scored_is_no_number_and_no_error():
    told = summarise([row(n, 'unscored', (None, None), reason='content filter') for n in range(3)])
    assert told['blue_win_rate'] == told['length_controlled'] == {'value': None, 'low': None, 'high': None, 'n': 0}
    assert json.loads(json.dumps(told, allow_nan=False))['p_value'] == 1
    text = render({**ABOUT, **told})
    assert 'unscored: 3 content filter' in text
    assert 'n/a' in text


def test_the_table_names_sides_categories_and_what_it_cost():
    lines = render({**ABOUT, **summarise(ROWS), 'money': 0.5}).splitlines()
    assert lines[1:4] == ['red   one', 'blue  two', 'judge j, asked which answer is better']
    (line,) = (line for line in lines if line.startswith('y '))
    assert line.split() == ['y', '2', *str(score_rate([0.5, 1])).split(), '1', '0', '1', '1']
    assert lines[-1] == '8 answers of the judge, 80 tokens in, 8 out, 0.5 at --judge_prices'


def test_the_problems_are_part_of_the_package_and_are_installed_with_it(monkeypatch, tmp_path):
    folder = resources.files('safe_align.evaluate') / 'problems'
    problems = JsonLines(str(folder / 'problem83.jsonl'))
    kinds = problems.column('category')
    assert (len(problems), len({sample['input'] for sample in problems})) == (83, 83)
    assert {kind: kinds.count(kind) for kind in kinds} == {
        'Social Bias': 14, 'Crime': 10, 'Privacy': 10, 'Emotional Harm': 10, 'Physical Harm': 10, 'Insult': 10,
        'Immoral': 10, 'Pornographic': 9,
    }  # fmt: skip
    assert 'Apache License' in (folder / 'README.md').read_text(encoding='utf-8')
    pytest.importorskip('setuptools')
    from distutils.core import run_setup

    monkeypatch.chdir(Path(__file__).parents[2])
    setup = run_setup('setup.py', ['--quiet', 'build_py'], stop_after='commandline')
    build = setup.get_command_obj('build_py')
    build.build_lib = str(tmp_path)
    build.ensure_finalized()
    installed = {
        name for package, _, _, names in build.data_files for name in names if package == 'safe_align.evaluate'
    }
    assert installed == {'problems/problem83.jsonl', 'problems/README.md'}
