"""A score function in the place of a reward or cost model: by its name, and with its content on record."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from safe_align import functions, plugins
from safe_align.algorithms.ppo_stage import _critic
from safe_align.config import UserError
from safe_align.engine import Placement
from safe_align.evaluate.certification.lineage import trace
from safe_align.models.loading import check_place
from safe_align.models.scorer import Conversation, check_scorer, load_scorer
from safe_align.ownership import parent_of

HEAD = 'from safe_align.functions import score_function\n\n\n@score_function\n'
FLAG = '--cost_model_name_or_path'


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(functions, '_registry', {})


@pytest.fixture
def plugin(tmp_path):
    """`plugin('def one(turns, response): return 1')` is the imported file."""

    def write(source: str, name: str = 'rules.py') -> Path:
        path = tmp_path / name
        path.write_text(HEAD + source + '\n', encoding='utf-8')
        plugins.import_plugin(str(path))
        return path

    return write


def scorer(name: str, policy=None):
    return load_scorer(f'function:{name}', 'cost', FLAG, Placement(), policy, budget=1)


def test_a_function_scores_turns_and_text(plugin):
    plugin('def share(turns, response):\n    return len(turns) + len(response) / 10')
    said = [Conversation(['a'], [1], [2], 'four'), Conversation(['a', 'b', 'c'], [1], [2], '')]
    scores = scorer('share').reading(None)(said)
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([1.4, 3.0])  # 1 + 4 / 10, 3 + 0


@pytest.mark.parametrize(
    ('score', 'given', 'expected'),
    [
        ('function:one', None, ('policy', '--actor_model_name_or_path')),
        ('function:one', 'mine', ('mine', '--reward_critic_model_name_or_path')),
        ('reward', None, ('reward', '--reward_model_name_or_path')),
    ],
)
def test_a_critic_in_a_function_s_place_starts_from_the_policy(score, given, expected):
    config = SimpleNamespace(actor_model_name_or_path='policy', reward_critic_model_name_or_path=given)
    assert _critic(SimpleNamespace(config=config, models=lambda _: [score]), 'reward', 0) == expected


def test_truth_values_and_numbers_of_numpy_are_numbers(plugin):
    plugin(
        'def some(turns, response):\n    import numpy\n    return numpy.float32(0.5) if response else len(turns) > 0'
    )
    found = functions.find('function:some', FLAG)
    assert (found(['a'], 'b'), found(['a'], '')) == (0.5, 1.0)


@pytest.mark.parametrize(
    ('body', 'part'),
    [
        ('1 / 0', 'ZeroDivisionError: division by zero'),
        ('float("nan")', 'must return a finite number in float32, returned nan'),
        ('float("inf")', 'must return a finite number in float32, returned inf'),
        ('1e300', 'must return a finite number in float32, returned 1e+300'),
        ('None', 'must return a finite number in float32, returned None'),
        ('"1"', "must return a finite number in float32, returned '1'"),
    ],
)
def test_what_gives_no_finite_number_says_so_with_the_response(plugin, body, part):
    path = plugin(f'def bad(turns, response):\n    return {body}')
    with pytest.raises(UserError) as caught:
        scorer('bad')([Conversation(['a'], [1], [2], 'The end.')])
    assert str(caught.value).startswith(f'function:bad of {path}: ')
    assert part in str(caught.value)
    assert str(caught.value).endswith("for the response 'The end.'")


def test_a_function_that_is_not_known_is_refused_with_the_nearest(plugin):
    with pytest.raises(UserError, match=f'{FLAG} function:short: no such score function; known: none; .* --plugin'):
        check_scorer('function:short', 'cost', FLAG, 10)
    plugin('def shortness(turns, response):\n    return 0')
    with pytest.raises(UserError, match=r'did you mean shortness\?'):
        check_scorer('function:shortnes', 'cost', FLAG, 10)
    with pytest.raises(UserError, match='has no normaliser; leave --normalize_cost out'):
        check_scorer('function:shortness', 'cost', FLAG, 10, normalize=True)
    with pytest.raises(UserError, match='--model_name_or_path function:shortness: a function, where a model was'):
        check_place('function:shortness', '--model_name_or_path')


def test_a_name_is_that_of_one_file(plugin):
    plugin('def one(turns, response):\n    return 1')
    with pytest.raises(ImportError, match=r'function:one: the name is taken by .*rules\.py'):
        plugin('def one(turns, response):\n    return 2', 'others.py')


def test_what_has_no_file_has_no_content_for_the_record():
    space: dict = {}
    with pytest.raises(UserError, match='function:typed: must be defined in a file'):
        exec(HEAD + 'def typed(turns, response):\n    return 1', space)


def test_the_record_holds_name_file_and_a_hash_of_name_and_content(plugin):
    path = plugin(
        'def one(turns, response):\n    return 1\n\n\n@score_function\ndef two(turns, response):\n    return 2'
    )
    records = [parent_of('cost_model_name_or_path', f'function:{name}') for name in ('one', 'two')]
    expected = hashlib.blake2b(b'one\0' + path.read_bytes()).hexdigest()
    assert records[0] == {'path': 'function:one', 'kind': 'function', 'hash': expected, 'file': 'rules.py'}
    assert records[1]['hash'] != expected
    found = trace([(FLAG, 'function:one'), (FLAG, 'function:two')])
    assert [one.entry() for one in found] == [
        {'path': record['path'], 'hash': record['hash'], 'num_prompts': 0} for record in records
    ]
    assert all(isinstance(one.prompts, np.ndarray) for one in found)  # none, and that is known
