"""What the script online-dpo would run: which stage gets which flag, and what is refused before anything runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_align.config import UserError, parse

SCRIPTS = Path(__file__).parents[2] / 'scripts'
FEW = ('--model_name_or_path', 'tiny', '--datasets', 'alpaca', '--reward_model_name_or_path', 'rm', '--output_dir', 'o')


@pytest.fixture
def online_dpo(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import online_dpo

    return online_dpo


@pytest.fixture
def planned(online_dpo):
    """`planned('--lr', 1)` is what each stage of each iteration would be called with."""

    def make(*flags) -> list[list[list[str]]]:
        config = parse(online_dpo.joined(), [*map(str, (*FEW, *flags))])
        return [[online_dpo.flags_of(options) for options in iterated] for iterated in online_dpo.plan(config)]

    return make


def test_each_stage_gets_what_it_has_and_each_iteration_starts_from_the_last(planned):
    flags = ('--lr', 1e-3, '--temperature', 0.7, '--seed', 7, '--pairs', 'random', '--no_gradient_checkpointing')
    (sample, annotate, learn), second = planned('--iterations', 2, *flags)
    place = 'o/iteration-1'
    assert sample == [
        f'--output_dir={place}/responses', '--seed=7', '--temperature=0.7', '--model_name_or_path=tiny', '--datasets',
        'alpaca', '--iteration=1',
    ]  # fmt: skip
    assert set(annotate) == {
        f'--output_dir={place}/feedback', '--seed=7', '--pairs=random', '--reward_model_name_or_path=rm',
        '--responses', f'{place}/responses',
    }  # fmt: skip
    assert set(learn) == {
        f'--output_dir={place}/policy', '--seed=7', '--lr=0.001', '--model_name_or_path=tiny', '--train_datasets',
        f'jsonl:1:{place}/feedback/feedback.jsonl',
    }  # fmt: skip
    assert {'--model_name_or_path=o/iteration-1/policy', '--iteration=2'} <= set(second[0])
    assert '--model_name_or_path=o/iteration-1/policy' in second[2]
    assert '--ref_model_name_or_path=tiny' in second[2]  # the first policy of all


def test_the_tracker_of_a_stage_is_its_own_unless_one_is_asked_for(planned):
    assert not [word for command in planned()[0] for word in command if 'log_type' in word]
    assert ['--log_type=none' in command for command in planned('--log_type', 'none')[0]] == [False, False, True]
    assert ['--log_type=wandb' in command for command in planned('--log_type', 'wandb')[0]] == [True, True, False]


@pytest.mark.parametrize(('loss', 'kind'), [('dpo', 'pairwise'), ('raft', 'pairwise'), ('kto', 'pointwise'),
                                            ('bco', 'pointwise'), ('csft', 'pointwise')])  # fmt: skip
def test_the_loss_says_what_feedback_it_learns_from(planned, loss, kind):
    annotate = planned('--loss', loss)[0][1]
    assert ('--feedback_type=pointwise' in annotate) == (kind == 'pointwise')


@pytest.mark.parametrize(('sampler', 'reads'), [('online', False), ('mixp', True), ('ref', True), ('gshf', True)])
def test_a_sampler_gets_the_reference_if_it_draws_from_it(planned, sampler, reads):
    first, second = planned('--iterations', 2, '--sampler', sampler)
    assert ('--ref_model_name_or_path=tiny' in first[0]) == ('--ref_model_name_or_path=tiny' in second[0]) == reads
    third = planned('--sampler', sampler, '--renew_reference')[2]
    assert ('--ref_model_name_or_path=o/iteration-2/policy' in third[0]) == reads
    assert not [word for word in third[2] if 'ref_model' in word]  # it is the policy itself


def test_a_reward_model_goes_to_who_reads_it(planned):
    given = '--reward_model_name_or_path=rm'
    assert [given in command for command in planned()[0]] == [False, True, False]
    assert [given in command for command in planned('--sampler', 'best_of_n')[0]] == [True, True, False]
    by_cost = ('--sampler', 'best_of_n', '--annotator', 'cost_model', '--cost_model_name_or_path', 'cm')
    assert [given in command for command in planned(*by_cost)[0]] == [True, False, False]


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (('--temprature', 1), 'unknown flag --temprature (did you mean --temperature?)'),
        (('--iteration', 1), 'did you mean --iterations?'),
        (('--feedback_type', 'pairwise'), 'unknown flag --feedback_type'),
        (('--iterations', 0), '--iterations 0: must be at least 1'),
        (('--sampler', 'mixq'), 'did you mean mixp?'),
        (('--sampler', 'mixp', '--num_return_sequences', 3), 'as many from one law as from another'),
        (('--num_return_sequences', 1), '--loss dpo learns from pairs; give 2 or more'),
        (('--loss', 'pop'), 'learns from pairs of pairs'),
        (('--loss', 'dop'), '--loss dop: no such loss'),
        (('--annotator', 'score_modl'), 'did you mean score_model?'),
        (('--annotator', 'reward_minus_cost'), 'needs --cost_model_name_or_path'),
        (('--cost_model_name_or_path', 'cm'), '--annotator score_model reads none; leave it out'),
        (('--annotator', 'cost_model', '--cost_model_name_or_path', 'cm'), '--reward_model_name_or_path: --annotator'),
        (('--loss', 'kto', '--desirable_from', 'middle'), 'mean or median was expected'),
        (('--sampler', 'mixp', '--sampler_options', 'policy_1=nan'), 'policy_1=nan: a law of neither model, or of'),
        (('--renew_reference', '--ref_model_name_or_path', 'sft'), 'choose one'),
        (('--generation_backend', 'server', '--server_url', 'http://a/v1'), 'the policy of the first iteration alone'),
        (('--need_eval',), 'give --eval_datasets'),
    ],
)
def test_what_a_stage_would_refuse_is_refused_at_once(planned, flags, said):
    with pytest.raises(UserError) as error:
        planned(*flags)
    assert said in str(error.value)


def test_planning_takes_no_torch():
    code = f"""
import sys
sys.path.insert(0, {str(SCRIPTS)!r})
import online_dpo
from safe_align.config import parse
online_dpo.plan(parse(online_dpo.joined(), {[*FEW, '--loss', 'kto', '--sampler', 'mixp']!r}))
print('torch' in sys.modules)
"""
    root = {**os.environ, 'PYTHONPATH': str(SCRIPTS.parent)}
    assert subprocess.run([sys.executable, '-c', code], env=root, capture_output=True, text=True).stdout == 'False\n'
