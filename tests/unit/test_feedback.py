"""From scores and verdicts to pairs and single answers, and the rows of both."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_align.config import UserError
from safe_align.datasets.rows import prompt_hash, prompt_name
from safe_align.online.feedback import Pair, border_of, candidates, compared_pairs, couples, draw_for, scored_pairs
from safe_align.online.feedback_rows import Judged, Rules, scalar_rows, single_rows
from safe_align.online.records import Prompt, read_responses

COMPARED = Rules('pairwise', 'random', True, 0.0, 0)
SCORES = [0.5, 2.0, -1.0, 1.9]
TEXTS = ['a', 'b', 'c', 'd']


def draw():
    return np.random.default_rng(0)


def test_the_best_and_the_worst():
    assert scored_pairs(TEXTS, SCORES, 'max_min', draw())[0] == [Pair(1, 2)]
    assert candidates([1.0, 1.0, 0.0, 0.0], 'max_min', draw()) == [Pair(0, 2)]  # the first of equals


def test_the_best_and_another():
    found = {scored_pairs(TEXTS, SCORES, 'max_random', np.random.default_rng(n))[0][0] for n in range(50)}
    assert found == {Pair(1, 0), Pair(1, 2), Pair(1, 3)}


def test_all_two_by_two():
    pairs, dropped = scored_pairs(TEXTS, SCORES, 'random', draw())
    assert sorted(n for pair in pairs for n in pair) == [0, 1, 2, 3]
    assert all(SCORES[pair.chosen] > SCORES[pair.rejected] for pair in pairs)
    assert not dropped
    assert len(couples(5, draw())) == 2


def test_the_two_that_differ_least_yet_by_more_than_the_gap():
    assert scored_pairs(TEXTS, SCORES, 'closest', draw())[0] == [Pair(1, 3)]
    assert scored_pairs(TEXTS, SCORES, 'closest', draw(), 0.2)[0] == [Pair(3, 0)]
    assert scored_pairs(TEXTS, SCORES, 'closest', draw(), 3.0) == ([], {'tie': 1})


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=6),
    st.sampled_from(['max_min', 'max_random', 'random', 'closest']), st.sampled_from([0.0, 1.0]),
)  # fmt: skip
def test_whatever_is_chosen_is_better_by_more_than_the_gap_and_all_else_is_counted(scores, how, gap):
    texts = [str(n) for n in range(len(scores))]
    pairs, dropped = scored_pairs(texts, scores, how, draw(), gap)
    assert all(scores[pair.chosen] - scores[pair.rejected] > gap for pair in pairs)
    assert len(pairs) + dropped.total() == (len(scores) // 2 if how == 'random' else 1)
    if how in ('max_min', 'max_random') and pairs:
        assert scores[pairs[0].chosen] == max(scores)
    if how == 'closest':
        gaps = [abs(a - b) for a, b in itertools.combinations(scores, 2) if abs(a - b) > gap]
        assert [scores[pair.chosen] - scores[pair.rejected] for pair in pairs] == ([min(gaps)] if gaps else [])


def test_ties_repeats_abstentions_and_single_responses_are_counted():
    assert scored_pairs(['a', 'b'], [1.0, 1.0], 'max_min', draw()) == ([], {'tie': 1})
    assert scored_pairs(['a', 'a'], [1.0, 2.0], 'max_min', draw()) == ([], {'identical': 1})
    assert scored_pairs(['a'], [1.0], 'max_min', draw()) == ([], {'one response': 1})
    three = [Pair(0, 1), Pair(2, 3), Pair(1, 2)]
    assert compared_pairs(TEXTS, three, [-1, None, 0]) == ([Pair(1, 0)], {'abstention': 1, 'tie': 1})


def test_the_random_numbers_of_a_prompt_are_its_own_and_its_responses():
    def first(*of):
        return draw_for(*of).random()

    assert first(1, 'p', ['a', 'b']) == first(1, 'p', ['a', 'b'])
    assert len({first(1, 'p', ['a']), first(2, 'p', ['a']), first(1, 'q', ['a']), first(1, 'p', ['b'])}) == 4


def test_where_single_answers_become_desirable():
    assert border_of('0.5', SCORES) == 0.5
    assert border_of('mean', SCORES) == pytest.approx(0.85)
    assert border_of('median', SCORES) == pytest.approx(1.2)
    with pytest.raises(UserError, match='a finite number, mean or median'):
        border_of('average', SCORES)
    with pytest.raises(UserError, match='--desirable_from nan: a finite number'):
        border_of('nan', SCORES)


def prompt_of(texts=TEXTS, name='Why?', **more) -> Prompt:
    key = prompt_name(prompt_hash([name]))
    rows = [
        {'type': 'sample', 'prompt_id': key, 'sample_id': n, 'prompt': [{'role': 'user', 'content': name}],
         'response': text, 'token_ids': [n, 7], 'log_probs': [-1.0, -0.5 * n], 'tokenizer': 'T', 'template': 'F',
         **more}
        for n, text in enumerate(texts)
    ]  # fmt: skip
    return Prompt(key, [name], rows)


def test_a_pair_brings_its_scores_ids_log_probabilities_and_safety():
    said = [{'score': score, 'cost': -score} for score in SCORES]
    (row,), dropped = Rules('pairwise', 'max_min', False, 0.0, 0).pairs([Judged(prompt_of(), said)])
    assert not dropped
    assert (row['chosen'], row['rejected'], row['chosen_id'], row['rejected_id']) == ('b', 'c', 1, 2)
    assert (row['score_chosen'], row['score_rejected'], row['margin']) == (2.0, -1.0, 3.0)
    assert (row['is_chosen_safe'], row['is_rejected_safe']) == (True, False)
    assert (row['chosen_token_ids'], row['rejected_token_ids'], row['tokenizer']) == ([1, 7], [2, 7], 'T')
    assert (row['chosen_log_prob'], row['rejected_log_prob']) == (-1.5, -2.0)


def test_verdicts_make_pairs_without_scores():
    prompt = prompt_of(['a', 'b'])
    (first, second), = couples(2, draw_for(0, prompt.name, prompt.texts))  # fmt: skip
    (row,), _ = COMPARED.pairs([Judged(prompt, [{'verdict': 0.0}])])
    assert (row['chosen_id'], row['rejected_id']) == (second, first)
    assert 'margin' not in row
    assert COMPARED.pairs([Judged(prompt, [{'verdict': 0.5}])]) == ([], {'tie': 1})
    assert COMPARED.pairs([Judged(prompt, [{'verdict': None}])]) == ([], {'abstention': 1})


def test_single_answers_and_scores():
    judged = [Judged(prompt_of(), [{'score': score} for score in SCORES])]
    assert [row['label'] for row in single_rows(judged, 1.2)] == [False, True, False, True]
    assert [row['label'] for row in single_rows(judged, -1)] == [True] * 4
    assert single_rows(judged, 0.85)[1]['log_prob'] == -1.5
    assert [row['score'] for row in scalar_rows(judged[0])] == SCORES


class TestReading:
    def write(self, path, rows, end='\n'):
        path.write_text('\n'.join(json.dumps(row) for row in rows) + end)
        return str(path)

    def read(self, *places):
        said = []
        return read_responses(places, said.append), said

    def test_a_prompt_s_responses_may_lie_in_several_files(self, tmp_path):
        rows = prompt_of().rows
        first = self.write(tmp_path / 'a.jsonl', rows[2:])
        second = self.write(tmp_path / 'b.jsonl', [*prompt_of(name='Else?').rows, *rows[:2]])
        (prompt, other), said = self.read(first, second)
        assert (prompt.texts, prompt.turns, other.turns) == (TEXTS, ['Why?'], ['Else?'])
        assert not said

    def test_a_half_written_last_line_is_left_out_and_said_so(self, tmp_path):
        rows = prompt_of().rows
        path = self.write(tmp_path / 'a.jsonl', rows, end='\n{"prompt_id": "12')
        (prompt,), said = self.read(path)
        assert prompt.texts == TEXTS
        assert said == [f'{path}: its last line is half written; it is left out']

    @pytest.mark.parametrize(
        ('change', 'told'),
        [
            ({'response': None}, 'line 2: is no response: its response is None'),
            ({'response': 'x \ud83d'}, 'line 2: holds half of a surrogate pair'),
            ({'sample_id': 0}, 'line 2: response 0 of prompt'),
            ({'prompt': [{'role': 'user', 'content': 'Other?'}]}, 'line 2: its prompt is not the one of prompt_id'),
            ({'prompt': [{'role': 'assistant', 'content': 'Why?'}]}, 'line 2: prompt: turns of user and assistant'),
        ],
    )
    def test_rows_that_are_none_are_refused(self, tmp_path, change, told):
        rows = prompt_of().rows[:2]
        path = self.write(tmp_path / 'a.jsonl', [rows[0], {**rows[1], **change}])
        with pytest.raises(UserError, match=told):
            self.read(path)

    def test_what_is_no_file_or_not_json_is_refused(self, tmp_path):
        with pytest.raises(UserError, match='cannot be read'):
            self.read(str(tmp_path / 'none.jsonl'))
        for content in ('garbage', '[' * 100_000):
            (tmp_path / 'bad.jsonl').write_text(f'{content}\n{{}}\n')
            with pytest.raises(UserError, match='line 1: is not JSON'):
                self.read(str(tmp_path / 'bad.jsonl'))
