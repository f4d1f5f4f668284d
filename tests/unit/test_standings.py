"""What a round robin says of hand-made rows."""

from __future__ import annotations

import json
import math
import warnings

import pytest

from safe_align.evaluate.match import summarise as summarise_corners
from safe_align.evaluate.standings import render, summarise

LABELS = ('a', 'b', 'c')
REWARDS = [(3, 1, 2), (2, 2, 0), (1, 3, 0), (5, 1, 2)]
COSTS = [(-1, 1, 0), (-1, 2, -3), (2, 1, -1), (-2, 1, -1)]


def row(rewards: tuple, costs: tuple, category: str | None = None, sample: int = 0) -> dict:
    found = {'prompt': 'Why?', 'sample': sample, 'category': category}
    for label, reward, cost in zip(LABELS, rewards, costs, strict=True):
        found |= {f'{label}_answer': 'so ' * int(abs(reward)), f'{label}_reward': reward, f'{label}_cost': cost}
    return found


ROWS = [
    row(reward, cost, category)
    for reward, cost, category in zip(REWARDS, COSTS, ('maths', 'maths', 'law', 'law'), strict=True)
]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def test_scores_pairs_and_ties_are_those_worked_by_hand():
    summary = summarise(ROWS, LABELS)
    assert [one['reward']['value'] for one in summary['policies']] == [2.75, 1.75, 1.0]
    assert [one['safe']['value'] for one in summary['policies']] == [0.75, 0.0, 1.0]
    first = summary['pairs'][0]
    assert (first['policy'], first['opponent']) == ('a', 'b')
    # a against b by reward: won, tied, lost, won; by safety: won, won, lost, won
    assert (first['reward']['win_rate']['value'], first['reward']['ties']) == (0.625, 1)
    assert first['safety']['win_rate']['value'] == 0.75
    assert first['reward']['difference']['value'] == 1.0
    assert first['reward']['p_value'] == 1.0  # two of three
    assert summary['num_prompts'] == 4
    assert sum(one['elo_reward']['value'] for one in summary['policies']) == pytest.approx(0, abs=1e-9)


def test_it_agrees_with_the_two_corners():
    rows = [
        {f'{corner}_{kind}': one[f'{label}_{kind}'] for corner, label in (('red', 'b'), ('blue', 'a'))
         for kind in ('reward', 'cost', 'answer')} for one in ROWS
    ]  # fmt: skip
    corners, pair = summarise_corners(rows), summarise(ROWS, LABELS)['pairs'][0]
    for kind, told in (('reward', 'reward'), ('safety', 'safety')):
        assert pair[kind]['win_rate']['value'] == corners[f'blue_wins_{told}']['value']
    assert pair['reward']['difference'] == corners['reward_difference']


def test_each_category_has_a_table_of_its_own():
    maths, law = sorted(summarise(ROWS, LABELS)['categories'], key=lambda one: one['category'], reverse=True)
    assert (maths['category'], maths['num_prompts'], law['num_prompts']) == ('maths', 2, 2)
    assert [one['reward']['value'] for one in maths['policies']] == [2.5, 1.5, 1.0]
    assert summarise([{**one, 'category': None} for one in ROWS], LABELS)['categories'] == []


def test_the_order_of_policies_changes_no_number():
    summary, other = summarise(ROWS, LABELS), summarise(ROWS, LABELS[::-1])
    for one in other['policies']:
        same = next(found for found in summary['policies'] if found['policy'] == one['policy'])
        assert one['elo_reward']['value'] == pytest.approx(same['elo_reward']['value'], abs=1e-6)
        assert one['safe'] == same['safe']


def test_copies_as_samples_change_no_estimate():
    doubled = [{**one, 'sample': n} for one in ROWS for n in range(2)]
    once, twice = summarise(ROWS, LABELS), summarise(doubled, LABELS)
    assert twice['num_samples'] == 2
    for a, b in zip(once['pairs'], twice['pairs'], strict=True):
        assert list(b['reward']['elo_difference'].values()) == pytest.approx(
            list(a['reward']['elo_difference'].values())
        )
        assert b['reward']['win_rate']['value'] == a['reward']['win_rate']['value']


@pytest.mark.parametrize('rows', [ROWS, ROWS[:1], [row((1, 1, 1), (0, 0, 0))] * 3, [row((3, 2, 1), (1, 2, 3))] * 3])
def test_a_summary_is_json_and_can_be_rendered_whatever_is_missing(rows):
    summary = summarise(rows, LABELS)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    text = render(summary)
    assert f'{len(rows)} prompts' in text
    assert 'nan' not in text.lower()
    assert ('some won or lost all games' in text) == (summary['separated_reward'] or summary['separated_safety'])
    assert all(math.isfinite(one['elo_reward']['value']) for one in summary['policies'])
