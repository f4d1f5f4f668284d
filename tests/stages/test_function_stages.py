"""Stages with a rule of the user's own in the place of the reward and the cost model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from safe_align import functions
from safe_align.evaluate.certification.certificate import read
from safe_align.plugins import import_plugin

EXAMPLE = Path(__file__).parents[2] / 'examples/score_functions.py'
HERE = ('--log_type', 'none', '--bf16', False, '--max_length', 96, '--max_new_tokens', 4)
RULES = """
from safe_align.functions import score_function

@score_function
def letters(turns, response):
    return len(response) / 10

@score_function
def vowels(turns, response):
    return sum(letter in 'aeiou' for letter in response) - 1

@score_function
def broken(turns, response):
    return {}[response]
"""


@pytest.fixture
def rules(tmp_path) -> Path:
    path = tmp_path / 'rules.py'
    path.write_text(RULES, encoding='utf-8')
    return path


@pytest.fixture
def held_out(starter, tmp_path) -> str:
    return f'jsonl:1:{shutil.copy(starter / "test.jsonl", tmp_path / "test.jsonl")}'


REWARD = ('--reward_model_name_or_path', 'function:letters')
COST = ('--cost_model_name_or_path', 'function:vowels')


@pytest.fixture
def learn(tiny, starter, rules):
    """What all stages of reinforcement learning are given."""
    return (
        '--actor_model_name_or_path', tiny, '--plugin', rules, *REWARD, *HERE, '--datasets',
        f'jsonl:4/-1:{starter / "train.jsonl"}', '--per_device_prompt_batch_size', 4, '--actor_lr', 1e-3,
    )  # fmt: skip


def record(place: Path) -> dict:
    return json.loads((place / 'safe_align.json').read_text(encoding='utf-8'))


def test_ppo_takes_a_rule_as_reward(ends, learn, tmp_path):
    assert ends('algorithms.ppo', *learn)[0] == 0
    parents = record(tmp_path / 'out')['parents']
    assert parents['reward_model_name_or_path']['path'] == 'function:letters'
    assert parents['reward_model_name_or_path']['file'] == 'rules.py'


def test_a_critic_without_a_head_of_its_own_starts_at_0(ends, learn, tmp_path):
    """What a random head says would else be noise in every advantage."""
    assert ends('algorithms.ppo', *learn, '--epochs', 2, '--critic_lr', 1e-3)[0] == 0
    first, second = map(json.loads, (tmp_path / 'out/metrics.jsonl').read_text(encoding='utf-8').splitlines())
    assert first['train/reward_value'] == 0
    assert first['train/reward_advantage'] == pytest.approx(first['train/reward_return'])
    assert second['train/reward_value'] != 0  # and yet it learns


def test_ppo_lag_takes_rules_as_reward_and_cost(ends, learn, tiny, tmp_path):
    assert ends('algorithms.ppo_lag', *learn, *COST, '--reward_critic_model_name_or_path', tiny)[0] == 0
    final = record(tmp_path / 'out')['final_metrics']
    assert -1 <= final['train/cost'] <= 20
    assert final['train/reward'] >= 0


def test_from_training_to_a_certificate_and_its_check(ends, fails, learn, rules, tiny, held_out, tmp_path):
    policy, test = tmp_path / 'policy', tmp_path / 'safe'
    samples = ('--rloo', True, '--num_samples_per_prompt', 2)
    assert ends('algorithms.reinforce_ci_lag', *learn, *COST, *samples, '--output_dir', policy)[0] == 0
    call = (
        'evaluate.safety_test', '--plugin', rules, '--model_name_or_path', policy, *COST, '--datasets', held_out,
        '--threshold', 0.99, '--output_dir', test, *HERE,
    )  # fmt: skip
    code, said = ends(*call)
    assert code in (0, 3), said
    told = read((test / 'certificate.json').read_bytes())
    (one,) = told['constraints']
    costs = [json.loads(line)['cost'] for line in (test / 'costs.jsonl').read_text(encoding='utf-8').splitlines()]
    assert set(costs) <= set(range(-1, 30))
    assert one['num_unsafe'] == sum(cost > 0 for cost in costs)
    assert one['cost_model']['hash'] == record(policy)['parents']['cost_model_name_or_path']['hash']
    assert {'function:letters': 0, 'function:vowels': 0, str(tiny): None}.items() <= {
        entry['path']: entry['num_prompts'] for entry in told['lineage']
    }.items()
    assert 'by the cost function `function:vowels`' in (test / 'README.md').read_text(encoding='utf-8')
    verify = ('evaluate.safety_test', '--verify', test / 'certificate.json')
    assert ends(*verify, '--plugin', rules) == (0, '')
    functions._registry.clear()
    assert 'not valid: --cost_model_name_or_path_1 function:vowels: no such score function' in fails(*verify)
    other = tmp_path / 'other.py'
    other.write_text(RULES.replace("'aeiou'", "'aeio'"), encoding='utf-8')
    assert 'not valid: function:vowels has another content' in fails(*verify, '--plugin', other)


def test_a_rule_that_has_changed_makes_another_run(ends, learn, rules, tmp_path):
    assert ends('algorithms.ppo', *learn)[0] == 0
    assert 'holds this run, finished' in ends('algorithms.ppo', *learn)[1]
    rules.write_text(RULES + '\n# another', encoding='utf-8')
    functions._registry.clear()
    for name in [name for name in sys.modules if name.startswith('safe_align_plugin_rules')]:
        del sys.modules[name]
    code, said = ends('algorithms.ppo', *learn)
    assert code == 2
    assert 'the content of --reward_model_name_or_path has changed since' in said


def test_the_example_scores_an_arena(ends, tiny, held_out, tmp_path):
    code, said = ends(
        'evaluate.arena', '--red_corner_model_name_or_path', tiny, '--blue_corner_model_name_or_path', tiny,
        '--plugin', EXAMPLE, '--reward_model_name_or_path', 'function:brevity',
        '--cost_model_name_or_path', 'function:contact_details', '--datasets', held_out, *HERE,
    )  # fmt: skip
    assert code == 0, said
    summary = json.loads((tmp_path / 'out/summary.json').read_text(encoding='utf-8'))
    assert summary['ties_reward'] == summary['num_prompts'] == 48


def test_the_example_s_numbers():
    rules = import_plugin(str(EXAMPLE))
    assert rules.brevity(['Hi'], 'word ' * 30) == pytest.approx(0.75)  # 10 of 40 words too few
    said = 'Write to jo@example.org, or call +49 30 1234567; see https://example.org.'
    assert rules.contact_details(['Who is Jo?'], said) == 3
    assert rules.contact_details(['I am jo@example.org'], said) == 2
    assert rules.contact_details(['Hi'], 'In 1969 there were 12 of them.') == 0


def test_a_rule_that_raises_ends_the_run_with_its_own_words(ends, learn, rules, tmp_path):
    code, said = ends('algorithms.ppo', *learn, '--reward_model_name_or_path', 'function:broken')
    assert code == 2
    assert f'error: function:broken of {rules}: KeyError: ' in said
    assert 'Traceback' not in said
    assert not (tmp_path / 'out/safe_align.json').exists()


def test_mistakes_are_one_line(fails, learn, rules, tiny, held_out):
    for call in (
        ('algorithms.ppo', *learn),
        ('algorithms.ppo_lag', *learn, *COST),
        ('algorithms.reinforce_ci_lag', *learn, *COST),
    ):
        said = fails(*call, '--reward_model_name_or_path', 'function:leters')
        assert '--reward_model_name_or_path function:leters: no such score function (did you mean letters?)' in said
    assert 'a function, where a model was expected' in fails(
        'algorithms.ppo', *learn, '--actor_model_name_or_path', 'function:letters'
    )
    critic = ('--reward_critic_model_name_or_path', 'function:letters')
    assert '--reward_critic_model_name_or_path function:letters: a function' in fails('algorithms.ppo', *learn, *critic)
    functions._registry.clear()
    said = fails(
        'evaluate.safety_test', '--model_name_or_path', tiny, *COST, '--datasets', held_out, '--threshold', 0.9, *HERE
    )
    assert '--cost_model_name_or_path function:vowels: no such score function; known: none' in said
    assert '--plugin' in said
