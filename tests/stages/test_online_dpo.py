"""Online preference learning in one process: what the stages do with files, and any loss, sampler and reference."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from forks import kill, wait_for
from safetensors.torch import load_file

from safe_align.algorithms import online_stage
from safe_align.datasets.mixture import build
from safe_align.datasets.packing import collate
from safe_align.losses import LOSSES, needs_of
from safe_align.models.loading import load_tokenizer
from safe_align.templates import Template

ONLINE, LEARN = 'algorithms.online_dpo', 'algorithms.preference'
HERE = ('--bf16', False, '--log_type', 'none', '--max_length', 96)
RULES = """
from safe_align.functions import score_function

@score_function
def vowels(turns, response):
    return sum(letter in 'aeiou' for letter in response) / (1 + len(response))

@score_function
def longer(turns, response):
    return len(response) - 30

@score_function
def same(turns, response):
    return 1.0
"""
REWARD = ('--reward_model_name_or_path', 'function:vowels')


@pytest.fixture(scope='module')
def rules(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('rules') / 'online_rules.py'
    path.write_text(RULES, encoding='utf-8')
    return path


@pytest.fixture
def drawn(tiny, starter, rules):
    """What draws and judges, one stage or two."""
    data = f'jsonl:12/-1:{starter / "train.jsonl"}'
    return {
        'policy': ('--model_name_or_path', tiny), 'prompts': ('--datasets', data),
        'law': ('--max_new_tokens', 8), 'judge': (*REWARD, '--plugin', rules),
    }  # fmt: skip


@pytest.fixture
def learn(drawn):
    """Online DPO of two steps of 4 pairs a round, 2 rounds."""
    return (
        ONLINE, *(one for part in drawn.values() for one in part), *HERE, '--lr', 1e-3,
        '--per_device_prompt_batch_size', 6, '--per_device_train_batch_size', 4,
    )  # fmt: skip


def lines_of(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]


SAME = {
    'dpo': ((), ('--loss', 'dpo')),
    'kto': ((), ('--loss', 'kto')),
    'four': (('--num_return_sequences', 4), ('--loss', 'ipo', '--pairs', 'random')),
    'closest': (('--num_return_sequences', 4), ('--loss', 'dpo', '--pairs', 'closest')),
    'raft': ((), ('--loss', 'raft')),
    'importance': (('--temperature', 0.8), ('--reweighter', 'importance', '--reweighter_options', 'clip=1e9')),
    'bco': ((), ('--loss', 'bco')),
    'csft': ((), ('--loss', 'csft')),
    'ppo_offline': ((), ('--loss', 'ppo_offline')),
}


@pytest.mark.parametrize('case', SAME)
def test_one_process_does_what_the_files_do(case, ends, drawn, tmp_path, monkeypatch):
    """The same rows, token for token, and the same loss."""
    (more, loss), tables = SAME[case], []
    table = online_stage.OnlinePreference.table
    monkeypatch.setattr(
        online_stage.OnlinePreference, 'table', lambda *given: tables.append(table(*given)) or tables[-1]
    )
    pairs = [value for n, value in enumerate(loss) if '--pairs' in loss[max(n - 1, 0) : n + 1]]
    loss = [value for value in loss if value not in pairs]
    whole = ('--per_device_train_batch_size', 100)
    code, said = ends(
        ONLINE, *drawn['policy'], *drawn['prompts'], *drawn['law'], *drawn['judge'], *more, *pairs, *loss, *HERE,
        *whole, '--per_device_prompt_batch_size', 100, '--output_dir', tmp_path / 'one',
    )  # fmt: skip
    assert code == 0, said
    sampled, judged = tmp_path / 'responses', tmp_path / 'feedback'
    code, said = ends('online.sample', *drawn['policy'], *drawn['prompts'], *drawn['law'], *more, *HERE,
                      '--output_dir', sampled)  # fmt: skip
    assert code == 0, said
    kind = 'pointwise' if needs_of(LOSSES[loss[1] if '--loss' in loss else 'dpo'], '').rows == 'answers' else 'pairwise'
    code, said = ends('online.annotate', '--responses', sampled, *drawn['judge'], *pairs, *HERE, '--feedback_type',
                      kind, '--output_dir', judged)  # fmt: skip
    assert code == 0, said
    data = f'jsonl:1:{judged / "feedback.jsonl"}'
    code, said = ends(LEARN, *drawn['policy'], '--datasets', data, *loss, *HERE, *whole,
                      '--output_dir', tmp_path / 'files')  # fmt: skip
    assert code == 0, said
    (first,), (other,) = lines_of(tmp_path / 'one'), lines_of(tmp_path / 'files')
    assert first['train/loss'] == pytest.approx(other['train/loss'], abs=1e-5)
    assert first['train/grad_norm'] == pytest.approx(other['train/grad_norm'], rel=1e-4)
    ((online, count),) = tables
    template = Template(load_tokenizer(str(drawn['policy'][1]), '--model'))
    rows = {'answers': 'conditioned by better' if case == 'csft' else 'answers by better', 'chosen': 'supervised'}
    needs = needs_of(LOSSES[loss[1] if '--loss' in loss else 'dpo'], '')
    offline = build([data], rows.get(needs.rows, 'preference by better'), template, 96, seed=0)
    assert count == len(online) == len(offline)

    def content(mixture) -> list:
        batches = [collate(mixture, [n]) for n in range(len(mixture))]
        return sorted(
            (batch.tokens.tolist(), {name: round(float(value), 4) for name, value in batch.fields.items()}.items())
            for batch in batches
        )

    assert [tokens for tokens, _ in content(online)] == [tokens for tokens, _ in content(offline)]


def test_it_learns_what_is_rewarded(ends, learn, tmp_path):
    code, said = ends(*learn, '--epochs', 8, '--lr', 2e-3, '--output_dir', tmp_path / 'out')
    assert code == 0, said
    scores = [line['train/score'] for line in lines_of(tmp_path / 'out')]
    assert sum(scores[-8:]) / 8 > sum(scores[:8]) / 8 + 0.03


@pytest.mark.parametrize('loss', sorted(set(LOSSES) - {'pop'}))
def test_any_loss_of_the_folder_trains(loss, ends, learn, tmp_path):
    more = ()
    if loss == 'safedpo':
        more = ('--annotator', 'reward_minus_cost', '--cost_model_name_or_path', 'function:longer')
    code, said = ends(*learn, '--loss', loss, *more, '--output_dir', tmp_path / 'out')
    assert code == 0, said
    assert all(math.isfinite(line['train/loss']) for line in lines_of(tmp_path / 'out'))


@pytest.mark.parametrize('sampler', ['ref', 'gshf', 'mixp', 'temperature', 'best_of_n'])
def test_any_sampler_draws_for_it(sampler, ends, learn, tmp_path):
    code, said = ends(*learn, '--sampler', sampler, '--renew_reference', 1, '--output_dir', tmp_path / 'out')
    assert code == 0, said
    assert len(lines_of(tmp_path / 'out')) == 4


@pytest.mark.parametrize('reweighter', ['margin', 'wpo', 'importance'])
def test_any_reweighter(reweighter, ends, learn, tmp_path):
    code, said = ends(*learn, '--reweighter', reweighter, '--output_dir', tmp_path / 'out')
    assert code == 0, said
    first = lines_of(tmp_path / 'out')[0]['train/reweight']
    assert first == pytest.approx(1.0, abs=1e-3) if reweighter == 'importance' else 0 < first < 2


def test_a_fixed_reference_stays_and_a_renewed_one_is_the_policy(ends, learn, tmp_path):
    """Log-ratios at the first step of a round are 0 where the reference was renewed before it."""
    for name, more in (('fixed', ()), ('renewed', ('--renew_reference', 1))):
        code, said = ends(*learn, *more, '--epochs', 2, '--output_dir', tmp_path / name)
        assert code == 0, said
    fixed, renewed = ([abs(line['train/log_ratio_chosen']) for line in lines_of(tmp_path / name)]
                      for name in ('fixed', 'renewed'))  # fmt: skip
    assert [value < 1e-4 for value in renewed] == [True, False] * 4
    assert [value < 1e-4 for value in fixed] == [True] + [False] * 7


def test_held_out_prompts_are_answered_and_scored(ends, learn, starter, tmp_path):
    code, said = ends(
        *learn, '--eval_datasets', f'jsonl:6/-1:{starter / "test.jsonl"}', '--output_dir', tmp_path / 'out'
    )
    assert code == 0, said
    first, last = [line for line in lines_of(tmp_path / 'out') if 'eval/score' in line]
    assert abs(first['eval/kl']) < 1e-5
    assert last['eval/kl'] > 1e-3
    assert last['eval/score'] != first['eval/score']


def test_adapters_train_and_the_reference_is_the_base(ends, learn, tmp_path):
    code, said = ends(*learn, '--lora_r', 4, '--lora_target_modules', 'q_proj', '--output_dir', tmp_path / 'out')
    assert code == 0, said
    assert abs(lines_of(tmp_path / 'out')[0]['train/log_ratio_chosen']) < 1e-4
    assert (tmp_path / 'out' / 'adapter_model.safetensors').exists()


def test_a_round_without_a_pair_makes_no_step_and_a_run_of_them_is_no_success(ends, learn, tmp_path):
    code, said = ends(*learn, '--reward_model_name_or_path', 'function:same', '--output_dir', tmp_path / 'out')
    assert code == 2, said
    assert 'no step moved the weights, so they are not kept: there was nothing to learn from' in said
    assert not (tmp_path / 'out' / 'metrics.jsonl').read_text()
    assert not (tmp_path / 'out' / 'manifest.json').exists()


def test_a_round_of_one_prompt_alone_makes_no_step_of_a_loss_that_compares_prompts(ends, learn, starter, tmp_path):
    data = f'jsonl:7/-1:{starter / "train.jsonl"}'
    code, said = ends(*learn, '--loss', 'kto', '--datasets', data, '--epochs', 2, '--output_dir', tmp_path / 'out')
    assert code == 0, said
    assert len(lines_of(tmp_path / 'out')) == 2 * 3  # 12 answers in steps of 4; the seventh prompt is alone


def test_two_processes_learn_what_one_learns(stages, drawn, learn, tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    stage, *given = learn
    options = [*given, '--per_device_prompt_batch_size', 12, '--per_device_train_batch_size', 12]
    code, said = stages.run(f'safe_align.{stage}', *options, '--output_dir', one)
    assert code == 0, said
    options = [*given, '--per_device_prompt_batch_size', 6, '--per_device_train_batch_size', 6]
    both = stages.launch(2, f'safe_align.{stage}', *options, '--output_dir', two)
    assert [process.wait() for process in both] == [0, 0], both[0].said
    (first,), (other,) = lines_of(one), lines_of(two)
    for name, value in first.items():
        assert other[name] == pytest.approx(value, rel=1e-3, abs=2e-4), name


def test_a_killed_run_goes_on_as_if_nothing_had_happened(stages, learn, tmp_path):
    stage, *given = learn
    options = [*given, '--epochs', 4, '--renew_reference', 2, '--save_interval', 2]
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    assert stages.run(f'safe_align.{stage}', *options, '--output_dir', whole)[0] == 0
    run = stages.start(f'safe_align.{stage}', *options, '--output_dir', killed)
    wait_for(lambda: any((killed / 'checkpoints').glob('step-*')), run)
    kill([run])
    code, said = stages.run(f'safe_align.{stage}', *options, '--output_dir', killed)
    assert code == 0, said
    first, other = (load_file(place / 'model.safetensors') for place in (whole, killed))
    for name, weights in first.items():
        torch.testing.assert_close(other[name], weights, rtol=0, atol=0)


class TestBadInput:
    def test_pairs_of_single_responses(self, fails, learn):
        assert 'learns from pairs; give 2 or more' in fails(*learn, '--num_return_sequences', 1)

    def test_pairs_of_pairs(self, fails, learn):
        assert 'pairs of pairs' in fails(*learn, '--loss', 'pop')

    def test_safety_without_a_cost(self, fails, learn):
        assert 'use an annotator with --cost_model_name_or_path' in fails(*learn, '--loss', 'safedpo')

    def test_a_divergence_from_one_prompt(self, fails, learn):
        assert 'answers to other prompts' in fails(*learn, '--loss', 'kto', '--per_device_prompt_batch_size', 1)

    def test_a_reference_that_nobody_reads(self, fails, learn, tiny):
        assert 'reads a reference' in fails(*learn, '--loss', 'simpo', '--ref_model_name_or_path', tiny)
        assert 'read none' in fails(*learn, '--loss', 'simpo', '--renew_reference', 2)

    def test_a_sampler_or_annotator_that_is_not_there(self, fails, learn):
        assert 'did you mean mixp?' in fails(*learn, '--sampler', 'mixq')
        assert 'did you mean cost_model?' in fails(*learn, '--annotator', 'cost_modell')
