"""Each kind of use reads a sample as it should, and a sample that cannot be used says why."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from safe_align.datasets.rows import (
    Skip,
    answers,
    fit,
    preference,
    preferences,
    prompt_hash,
    prompt_only,
    safety_preference,
    supervised,
)
from safe_align.templates import Template

LONG = 1000
PAIR = {'input': 'q', 'answer': 'a', 'other_answer': 'b', 'better': True, 'safer': True}
USES = {
    'supervised': supervised,
    'preference': preference,
    'safety_preference': safety_preference,
    'prompt': prompt_only,
}


@pytest.fixture(scope='module')
def template(tiny):
    return Template(AutoTokenizer.from_pretrained(tiny))


def _ids(sequence) -> list[int]:
    return [token for span in sequence for token in span.ids]


def _whole(template, turns, answer) -> list[int]:
    return template.prompt(turns) + template.response(answer)


def test_supervised_learns_the_answer_and_not_the_prompt(template):
    row = supervised({'input': 'q', 'answer': 'a'}, template, LONG)
    ((prompt, response),) = row.sequences
    assert (prompt.ids, prompt.is_response) == (template.prompt(['q']), False)
    assert (response.ids, response.is_response) == (template.response('a'), True)
    assert row.turns == ['q']
    assert row.fields == {'weight': 1.0, 'margin': 0.0, 'sampled_chosen_logps': math.nan}


@pytest.mark.parametrize(('better', 'learnt'), [(True, 'a'), (False, 'b'), (None, 'a')])
def test_supervised_learns_the_better_of_two_answers(better, learnt, template):
    row = supervised({**PAIR, 'better': better}, template, LONG)
    assert _ids(row.sequences[0]) == _whole(template, ['q'], learnt)


def test_supervised_learns_every_answer_of_a_dialogue(template):
    for turns in (['q', 'a', 'r', 'b'], ['q', 'a', 'r', 'b', 'a user turn at the end']):
        row = supervised({'dialogue': turns}, template, LONG)
        assert row.sequences == [template.dialogue(turns[:4])]
        assert row.turns == ['q']


def test_a_dialogue_that_is_too_long_ends_early(template):
    whole = _ids(template.dialogue(['q', 'a', 'r', 'b']))
    for length in range(len(template.prompt(['q'])) + 1, len(whole) + 1):
        row = supervised({'dialogue': ['q', 'a', 'r', 'b']}, template, length)
        assert _ids(row.sequences[0]) == whole[:length]


@pytest.mark.parametrize('better', [True, False])
def test_preference_puts_the_better_answer_first(better, template):
    row = preference({**PAIR, 'better': better, 'is_safe': True, 'weight': 2, 'margin': 0.5}, template, LONG)
    answers = 'ab' if better else 'ba'
    assert [_ids(sequence) for sequence in row.sequences] == [_whole(template, ['q'], answer) for answer in answers]
    labels = {'is_chosen_safe': 1.0 if better else -1.0, 'is_rejected_safe': -1.0 if better else 1.0}
    unknown = dict.fromkeys(('sampled_chosen_logps', 'sampled_rejected_logps'), math.nan)
    assert row.fields == {'weight': 2.0, 'margin': 0.5, **labels, **unknown}


@pytest.mark.parametrize(
    ('safer', 'labels', 'expected'),
    [
        (True, (True, False), (1, 0)),
        (False, (False, True), (1, 0)),  # the labels go where their answers go
        (False, (True, True), (1, 1)),
        (True, (False, False), (0, 0)),
        (False, (None, True), (1, -1)),
        (True, (None, None), (-1, -1)),
    ],
)
def test_safety_preference_puts_the_safer_answer_first(safer, labels, expected, template):
    sample = {**PAIR, 'better': None, 'safer': safer, 'is_safe': labels[0], 'is_other_safe': labels[1]}
    row = safety_preference(sample, template, LONG)
    assert _ids(row.sequences[0]) == _whole(template, ['q'], 'a' if safer else 'b')
    assert (row.fields['is_safer_safe'], row.fields['is_unsafer_safe']) == expected


@pytest.mark.parametrize('dialogue', [['q', 'a', 'r'], ['q', 'a', 'r', 'b']])
def test_prompt_ends_with_the_last_user_turn(dialogue, template):
    for sample in ({'dialogue': dialogue}, {'input': ['q', 'a', 'r'], 'answer': 'b'}):
        row = prompt_only(sample, template, LONG)
        assert _ids(row.sequences[0]) == template.prompt(['q', 'a', 'r'])
        assert not any(span.is_response for span in row.sequences[0])
        assert row.turns == ['q', 'a', 'r']


@pytest.mark.parametrize(
    ('kind', 'change', 'reason'),
    [
        ('supervised', {'input': ''}, 'no prompt'),
        ('supervised', {'input': None}, 'no prompt'),
        ('prompt', {'input': []}, 'no prompt'),
        ('supervised', {'input': ['q', 'a']}, 'prompt does not end with a user turn'),
        ('preference', {'input': ['q', ' ', 'r']}, 'empty turn'),
        ('prompt', {'input': ' \n'}, 'empty turn'),
        ('supervised', {'answer': None}, 'no answer'),
        ('supervised', {'answer': ' \n'}, 'no answer'),
        ('preference', {'other_answer': ''}, 'no answer'),
        ('preference', {'better': None}, "no label 'better'"),
        ('safety_preference', {'safer': None}, "no label 'safer'"),
        ('preference', {'other_answer': 'a'}, 'identical pair'),
        ('safety_preference', {'is_safe': False, 'is_other_safe': True}, 'contradicting safety labels'),
        ('supervised', {'dialogue': ['a question alone']}, 'nothing left after truncation'),
    ],
)
def test_a_sample_that_cannot_be_used_says_why(kind, change, reason, template):
    with pytest.raises(Skip, match=f'^{reason}$'):
        USES[kind]({**PAIR, **change}, template, LONG)


@pytest.mark.parametrize(
    ('sample', 'reason'),
    [
        ({'dialogue': ['q', 'a', 'r', ' ']}, 'empty turn'),
        ({'dialogue': ['q', 3]}, 'a turn is no text'),
        ({'dialogue': 'q a'}, 'dialogue is no list of turns'),
        ({'input': 3, 'answer': 'a'}, 'a turn is no text'),
        ({'input': ['q', b'a', 'r'], 'answer': 'a'}, 'a turn is no text'),
        ({'input': 'q', 'answer': 'a', 'better': 'no'}, "label 'better' is neither true nor false"),
    ],
)
def test_a_sample_of_ones_own_that_is_none_says_why(sample, reason, template):
    with pytest.raises(Skip, match=reason):
        supervised(sample, template, LONG)


@pytest.mark.parametrize('kind', ['preference', 'safety_preference'])
def test_pairs_that_differ_only_behind_the_cut_are_left_out(kind, template):
    answer = 'one two three four five six seven eight nine ten'
    with pytest.raises(Skip, match=r'^identical pair after truncation$'):
        USES[kind]({**PAIR, 'answer': answer, 'other_answer': answer + ' eleven'}, template, 12)


def test_a_prompt_that_is_too_long_to_answer_is_left_out_whole(template):
    length = len(template.prompt(['q']))
    assert _ids(prompt_only({'input': 'q'}, template, length).sequences[0]) == template.prompt(['q'])
    with pytest.raises(Skip, match=r'^prompt too long$'):
        prompt_only({'input': 'q'}, template, length - 1)


def test_both_answers_of_a_pair_follow_the_same_prompt_when_it_is_cut(template):
    sample = {**PAIR, 'input': 'word ' * 30, 'answer': 'short', 'other_answer': 'a much longer answer ' * 2}
    first, second = preference(sample, template, 40).sequences
    assert first[0] == second[0]
    assert len(_ids(second)) == 40


def test_fit_cuts_the_prompt_from_the_left_before_it_touches_the_answer():
    prompt, response = list(range(10)), [100, 101, 102]
    assert [span.ids for span in fit(prompt, response, 13)] == [prompt, response]
    assert [span.ids for span in fit(prompt, response, 8)] == [[5, 6, 7, 8, 9], response]
    # 4 // 4 = 1 token of the prompt stays, so 3 of the answer do
    assert [span.ids for span in fit(prompt, [*response, 103], 4)] == [[9], response]
    with pytest.raises(Skip, match='nothing left after truncation'):
        fit(prompt, response, 3)  # 3 // 4 = 0 tokens for the prompt


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60))
def test_fit_keeps_the_end_of_the_prompt_and_the_start_of_the_answer(num_prompt, num_response, max_length):
    prompt, response = list(range(num_prompt)), list(range(100, 100 + num_response))
    try:
        kept, answer = fit(prompt, response, max_length)
    except Skip:
        assert not prompt or not response or max_length <= max(num_response, 3)
        return
    assert kept.ids
    assert answer.ids
    assert kept.ids == prompt[-len(kept.ids) :]
    assert answer.ids == response[: len(answer.ids)]
    length = len(kept.ids) + len(answer.ids)
    assert length == min(max_length, num_prompt + num_response)  # not a token is wasted
    if len(answer.ids) < num_response:  # the answer is cut only if the prompt has at most a quarter
        assert len(kept.ids) <= max_length // 4


def test_a_prompts_hash_sees_words_and_turns_and_no_spaces():
    assert prompt_hash(['a  b\n']) == prompt_hash([' a b'])
    assert prompt_hash(['a b']) != prompt_hash(['ab'])
    assert prompt_hash(['a', 'b', 'c']) != prompt_hash(['a b c'])
    assert 0 <= prompt_hash(['a']) < 2**64


@pytest.mark.parametrize(
    ('numbers', 'reason'),
    [
        ({'weight': 'much'}, 'weight or margin is no number'),
        ({'margin': [1]}, 'weight or margin is no number'),
        ({'weight': -1}, 'weight is negative, or weight or margin not finite'),
        ({'weight': float('nan')}, 'weight is negative, or weight or margin not finite'),
        ({'margin': float('inf')}, 'weight is negative, or weight or margin not finite'),
    ],
)
def test_a_weight_or_margin_that_is_none_leaves_the_row_out(numbers, reason, template):
    with pytest.raises(Skip, match=reason):
        preference({**PAIR, 'better': True, **numbers}, template, LONG)


@pytest.mark.parametrize(
    ('by', 'change', 'expected'),
    [
        ('better', {}, [('a', 1), ('b', 0)]),
        ('better', {'better': False}, [('a', 0), ('b', 1)]),
        ('safer', {'safer': False}, [('a', 0), ('b', 1)]),
        ('better', {'other_answer': None}, [('a', 1)]),
        ('better', {'other_answer': None, 'better': False}, [('a', 0)]),
        ('safe', {'is_safe': True, 'is_other_safe': True}, [('a', 1), ('b', 1)]),
        ('safe', {'is_safe': None, 'is_other_safe': False}, [('b', 0)]),
        ('safe', {'is_safe': False, 'other_answer': None}, [('a', 0)]),
    ],
)
def test_answers_stand_by_themselves_with_their_labels(by, change, expected, template):
    rows = answers({**PAIR, **change}, template, LONG, by)
    assert [(_ids(row.sequences[0]), row.fields['labels']) for row in rows] == [
        (_whole(template, ['q'], answer), label) for answer, label in expected
    ]
    assert {tuple(row.turns) for row in rows} == {('q',)}


def test_a_conditioned_prompt_says_what_its_answer_is(template):
    good, bad = answers(PAIR, template, LONG, conditioned=True)
    assert _ids(good.sequences[0]) == _whole(template, ['q <|good|>'], 'a')
    assert _ids(bad.sequences[0]) == _whole(template, ['q <|bad|>'], 'b')
    assert good.turns == bad.turns == ['q']  # a prompt is new or not, whatever it ends with


@pytest.mark.parametrize('first', [True, False])
def test_a_pair_of_which_one_answer_is_safe_prefers_it(first, template):
    row = preference({**PAIR, 'is_safe': first, 'is_other_safe': not first}, template, LONG, 'safe')
    assert _ids(row.sequences[0]) == _whole(template, ['q'], 'a' if first else 'b')
    assert (row.fields['is_chosen_safe'], row.fields['is_rejected_safe']) == (1, 0)


@pytest.mark.parametrize(
    ('use', 'change', 'reason'),
    [
        (preference, {'is_safe': True, 'is_other_safe': True}, 'both answers safe'),
        (preference, {'is_safe': False, 'is_other_safe': False}, 'no answer safe'),
        (preference, {'is_safe': True}, "no label 'is_other_safe'"),
        (answers, {}, "no label 'is_safe'"),
        (supervised, {'is_safe': False, 'is_other_safe': False}, 'undesirable answer'),
    ],
)
def test_a_sample_without_a_safe_choice_says_why(use, change, reason, template):
    with pytest.raises(Skip, match=f'^{reason}$'):
        use({**PAIR, **change}, template, LONG, 'safe')


def test_the_weaker_pair_follows_the_stronger_one(template):
    row = preferences({**PAIR, 'better': False, 'weak_answer': 'c', 'weak_other_answer': 'd'}, template, LONG)
    assert [_ids(sequence) for sequence in row.sequences] == [_whole(template, ['q'], answer) for answer in 'bacd']
    with pytest.raises(Skip, match=r'^no answer$'):
        preferences(PAIR, template, LONG)


@pytest.mark.parametrize(('better', 'given', 'margin'), [(True, None, 2.5), (False, None, -2.5), (True, 1, 1)])
def test_scores_give_the_margin_that_is_not_given(better, given, margin, template):
    sample = {**PAIR, 'better': better, 'margin': given, 'score': 3, 'other_score': 0.5}
    assert preference(sample, template, LONG).fields['margin'] == margin


@pytest.mark.parametrize(('better', 'margin'), [(True, 2.5), (False, -2.5)])
def test_the_margin_of_an_answer_of_a_pair_is_that_of_the_pair(better, margin, template):
    sample = {**PAIR, 'better': better, 'score': 3, 'other_score': 0.5}
    rows = [*answers(sample, template, LONG), supervised(sample, template, LONG)]
    assert [row.fields['margin'] for row in rows] == [margin] * 3


def test_what_was_too_long_is_known(template):
    long = {**PAIR, 'input': 'word ' * 30}
    length = max(len(_whole(template, [long['input']], answer)) for answer in 'ab')
    for use in (preference, answers, supervised):
        assert [_first(use(long, template, room)).cut for room in (length, length - 1)] == [False, True]


def _first(made):
    return made[0] if isinstance(made, list) else made
