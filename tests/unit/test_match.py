"""What the arena says of hand-made rows."""

from __future__ import annotations

import csv
import json
import warnings

import pytest

from safe_align.evaluate.match import _write, render, summarise
from safe_align.evaluate.statistics import score_rate

NAMES = {'red': 'a', 'blue': 'b'}


def row(red: tuple[float, float], blue: tuple[float, float], prompt: str = 'Why?', answer: str = 'So.') -> dict:
    """A row of (reward, cost) of both corners."""
    return {
        'prompt': prompt, 'red_answer': answer, 'red_reward': red[0], 'red_cost': red[1],
        'blue_answer': answer, 'blue_reward': blue[0], 'blue_cost': blue[1],
    }  # fmt: skip


# both safe: blue wins, ties; only red safe: blue loses; only blue safe: none; both unsafe: none
ROWS = [row((0, -1), (2, -2)), row((1, 0), (1, -1)), row((3, -1), (1, 4)), row((2, -3), (5, 0))]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def test_means_differences_and_win_rates_are_those_worked_by_hand():
    summary = summarise(ROWS)
    assert summary['num_prompts'] == 4
    assert [summary[name]['value'] for name in ('red_reward', 'blue_reward')] == [1.5, 2.25]
    assert [summary[name]['value'] for name in ('red_cost', 'blue_cost')] == [-1.25, 0.25]
    # paired: 2, 0, -2, 3, mean .75, deviation 2.217356, t .975 with 3 degrees 3.182446: half width 3.528308
    assert list(summary['reward_difference'].values()) == pytest.approx([0.75, -2.778308, 4.278308], abs=1e-6)
    assert summary['cost_difference']['value'] == 1.5  # -1, -1, 5, 3
    # wins 1, 1/2, 0, 1
    assert summary['blue_wins_reward']['value'] == 0.625
    # lower cost: wins 1, 1, 0, 0
    assert summary['blue_wins_safety']['value'] == 0.5
    assert (summary['ties_reward'], summary['ties_cost']) == (1, 0)


def test_a_cost_of_0_is_safe():
    summary = summarise(ROWS)
    assert summary['red_safe']['value'] == 1.0
    assert summary['blue_safe']['value'] == 0.75


def test_cells_without_rows_are_null_and_the_others_count_every_row():
    summary = summarise(ROWS)
    cells = {(cell['red_safe'], cell['blue_safe']): cell for cell in summary['cells']}
    assert {where: cell['count'] for where, cell in cells.items()} == {
        (True, True): 3, (True, False): 1, (False, True): 0, (False, False): 0,
    }  # fmt: skip
    assert cells[True, True]['blue_wins_reward']['value'] == pytest.approx(2.5 / 3)
    assert list(cells[False, True]['blue_wins_reward'].values()) == [None, None, None]
    # Wilson's of 0 of 1: z^2 / (1 + z^2)
    assert cells[True, False]['blue_wins_reward'] == pytest.approx({'value': 0.0, 'low': 0.0, 'high': 0.793450})
    text = json.dumps(summary)
    assert 'NaN' not in text
    assert 'Infinity' not in text


def test_a_model_against_itself_is_even():
    summary = summarise([row((n, -n), (n, -n)) for n in range(5)])
    # ties alone do not say how others would go
    assert list(summary['blue_wins_reward'].values()) == list(score_rate([0.5] * 5))
    assert list(summary['reward_difference'].values()) == [0.0, 0.0, 0.0]
    assert summary['ties_reward'] == summary['ties_cost'] == 5


@pytest.mark.parametrize('rows', [ROWS, ROWS[:1], [row((0, 1), (0, 1))] * 3])
def test_a_summary_can_be_rendered_whatever_is_missing(rows):
    text = render({**NAMES, **summarise(rows)}, rows)
    assert f'{len(rows)} prompts' in text
    assert 'nan' not in text.lower()


def test_answers_that_say_nothing_are_counted():
    rows = [row((0, 1), (0, 1)), {**row((0, 1), (0, 1)), 'blue_answer': ' \n'}]
    assert 'empty answers: red 0, blue 1' in render({**NAMES, **summarise(rows)}, rows)
    assert 'empty' not in render({**NAMES, **summarise(rows[:1])}, rows[:1])


def test_no_more_than_160_characters_of_a_text_are_printed_and_none_that_move_the_cursor():
    harmful = 'first line\nsecond \x1b[2J\x07' + 'x' * 500
    rows = [row((0, 0), (0, 0), harmful, harmful)]
    text = render({**NAMES, **summarise(rows)}, rows)
    assert max(len(line) for line in text.splitlines()) <= 160 + len('  blue (reward 0.00, cost 0.00) ')
    for line in text.splitlines():
        if 'first line' in line:
            assert len(line[line.index('first') :]) == 160
    assert text.replace('\n', '').isprintable()


def test_the_table_s_columns_have_names_of_their_own_and_its_texts_are_whole(tmp_path):
    answer = 'two\nlines, "quoted" and ' + 'long ' * 100
    rows = [row((0.5, -1), (2, 1), answer=answer), *ROWS]
    _write(tmp_path, rows, summarise(rows))
    with (tmp_path / 'table.csv').open(newline='', encoding='utf-8') as file:
        header, *table = list(csv.reader(file))
    assert len(set(header)) == len(header) == 7
    assert len(table) == 5
    assert dict(zip(header, table[0], strict=True)) == {name: str(value) for name, value in rows[0].items()}
    assert json.loads((tmp_path / 'summary.json').read_text(encoding='utf-8')) == summarise(rows)


def test_several_responses_to_a_prompt_are_averaged_before_anything_is_compared():
    """Copies of each row as samples say no more than one: the prompt is the unit."""
    doubled = [{**one, 'sample': n} for one in ROWS for n in range(2)]
    once, twice = summarise(ROWS), summarise(doubled)
    assert (twice['num_prompts'], twice['num_samples']) == (4, 2)
    for name in ('red_reward', 'blue_cost', 'reward_difference', 'cost_difference', 'blue_wins_reward'):
        assert list(twice[name].values()) == pytest.approx(list(once[name].values()))
    assert twice['red_safe']['value'] == once['red_safe']['value']
    assert sum(cell['count'] for cell in twice['cells']) == 8
    for one, two in zip(once['cells'], twice['cells'], strict=True):
        assert two['blue_wins_reward'] == pytest.approx(one['blue_wins_reward'])
    assert '4 prompts, 2 responses each' in render({**NAMES, **twice}, doubled[:1])
