"""Prompts that were looked at are spent, but for the same test, and for more of the same under an anytime bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safe_align.config import UserError
from safe_align.evaluate.certification.ledger import Ledger, Look, place_of

FIRST = Look('subject', 'costs', [0.05], ['a', 'b', 'c'], False, None, {'date': 'today'})
ANYTIME = replace(FIRST, is_anytime=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'prompts.jsonl.ledger'


def after(path, first: Look, second: Look):
    with Ledger(path) as ledger:
        ledger.add(first, 'certified')
    with Ledger(path) as ledger:
        return ledger.find(second)


def test_new_prompts_are_free_and_the_same_test_is_no_second_look(path):
    assert after(path, FIRST, replace(FIRST, prompts=['d'], thresholds=[0.1])) is None
    with Ledger(path) as ledger:
        assert ledger.find(FIRST)['verdict'] == 'certified'
        assert ledger.find(replace(FIRST, told={}))['told'] == {'date': 'today'}


@pytest.mark.parametrize(
    'second',
    [
        replace(FIRST, subject='other'),
        replace(FIRST, thresholds=[0.06]),
        replace(FIRST, prompts=['c', 'd', 'e']),
        replace(FIRST, prompts=['c', 'b', 'a']),
        ANYTIME,
    ],
)
def test_another_look_at_any_of_the_prompts_is_refused(path, second):
    with pytest.raises(UserError, match=r'of 3 prompts are spent: .*jsonl.ledger, line 1, today, certified'):
        after(path, FIRST, second)


def test_an_anytime_bound_may_look_again_at_the_same_policy_with_more_prompts_behind(path):
    assert after(path, ANYTIME, replace(ANYTIME, prompts=['a', 'b', 'c', 'd'])) is None
    with Ledger(path) as ledger:
        assert ledger.find(replace(ANYTIME, thresholds=[0.2])) is None
        for second in (
            replace(ANYTIME, subject='other'),
            replace(ANYTIME, prompts=['a', 'c', 'b', 'd']),
            replace(ANYTIME, prompts=['a', 'b']),
            replace(FIRST, prompts=['a', 'b', 'c', 'd']),
        ):
            with pytest.raises(UserError, match=r'prompts are spent'):
                ledger.find(second)


def test_a_test_of_the_labels_cost_is_another_quantity(path):
    assert after(path, FIRST, replace(FIRST, quantity='labels', subject='other')) is None


def test_given_costs_must_go_on_as_they_were(path):
    first = replace(ANYTIME, costs=[['a', 1.0], ['b', 2.0], ['c', 0.0]])
    more = replace(first, prompts=['a', 'b', 'c', 'd'], costs=[*first.costs, ['d', 1.0]])
    assert after(path, first, more) is None
    with Ledger(path) as ledger, pytest.raises(UserError, match='3 of 4 prompts are spent'):
        ledger.find(replace(more, costs=[['a', 0.0], *more.costs[1:]]))


def test_a_ledger_is_open_once(path):
    with Ledger(path), pytest.raises(UserError, match='another run holds it'):
        Ledger(path)
    Ledger(path).file.close()


def test_a_ledger_that_cannot_be_read_or_made_is_no_ledger(path, tmp_path):
    path.write_text('{"subject": 1}\n', encoding='utf-8')
    with pytest.raises(UserError, match='line 1: cannot be read, so nothing is known'):
        Ledger(path)
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot be opened'):
        Ledger(tmp_path / 'file/ledger')


def test_a_ledger_lies_beside_the_one_file_or_where_it_is_said(tmp_path):
    data = tmp_path / 'test.jsonl'
    data.touch()
    assert place_of(['jsonl'], [str(data)], None) == tmp_path / 'test.jsonl.ledger'
    assert place_of(['jsonl'], [str(data)], str(tmp_path / 'x')) == tmp_path / 'x'
    for paths in ([None], [str(tmp_path / 'no')], [str(data), str(data)]):
        with pytest.raises(UserError, match='give --ledger a file'):
            place_of(['hub/name'], paths, None)
