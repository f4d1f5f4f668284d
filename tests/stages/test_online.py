"""Stages sample and annotate: rows on disk, whatever the batch size, the processes or the moment of a kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from forks import kill, wait_for
from transformers import AutoTokenizer

from safe_align.datasets.rows import prompt_hash, prompt_name
from safe_align.templates import Template

SAMPLE, ANNOTATE, LEARN = 'safe_align.online.sample', 'safe_align.online.annotate', 'safe_align.algorithms.preference'
HERE = ('--bf16', False, '--log_type', 'none')
RULES = """
from pathlib import Path

from safe_align.functions import score_function

@score_function
def vowels(turns, response):
    return sum(letter in 'aeiou' for letter in response) / (1 + len(response))

@score_function
def breaks(turns, response):
    here = Path(__file__).parent
    with open(here / 'calls', 'a') as file:
        file.write('.')
    if (here / 'stop').exists() and (here / 'calls').stat().st_size == 15:
        raise KeyError('the service is gone')
    return len(response)

@score_function
def letters(turns, response):
    return len(response) - 20
"""


def rows_of(directory: Path, name: str = 'responses') -> list[dict]:
    return [json.loads(line) for line in (directory / f'{name}.jsonl').read_text(encoding='utf-8').splitlines()]


def same_rows(found: list[dict], expected: list[dict]) -> None:
    """Equal but for the order in which a log-probability's products are added up."""
    for one, other in zip(found, expected, strict=True):
        assert one['log_probs'] == pytest.approx(other['log_probs'], abs=1e-4)
        assert {**one, 'log_probs': 0} == {**other, 'log_probs': 0}


@pytest.fixture(scope='module')
def rules(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('rules') / 'rules.py'
    path.write_text(RULES, encoding='utf-8')
    return path


@pytest.fixture(scope='module')
def asked(tiny, starter):
    """What the stage is asked; later options override."""
    return (
        '--model_name_or_path', tiny, '--datasets', f'jsonl:12/-1:{starter / "train.jsonl"}', '--max_length', 96,
        '--max_new_tokens', 8, '--generation_batch_size', 6, *HERE,
    )  # fmt: skip


@pytest.fixture(scope='module')
def sampled(stages, asked, tmp_path_factory) -> Path:
    """Two responses to each of 12 prompts."""
    place = tmp_path_factory.mktemp('sampled') / 'responses'
    code, said = stages.run(SAMPLE, *asked, '--output_dir', place)
    assert code == 0, said
    return place


@pytest.fixture(scope='module')
def judged(sampled, rules):
    """What the other stage is asked."""
    return (
        '--responses', sampled, '--plugin', rules, '--reward_model_name_or_path', 'function:vowels',
        '--max_length', 96, *HERE,
    )  # fmt: skip


def test_a_policy_is_asked_in_the_format_that_it_was_trained_on(stages, asked, tiny, starter, tmp_path):
    data = ('--datasets', f'jsonl:4/-1:{starter / "train.jsonl"}', '--max_length', 96)
    tuned = ('--model_name_or_path', tiny, *data, '--template', 'safe-rlhf', *HERE, '--output_dir', tmp_path / 'sft')
    code, said = stages.run('safe_align.finetune', *tuned)
    assert code == 0, said
    code, said = stages.run(SAMPLE, *asked, '--model_name_or_path', tmp_path / 'sft', '--output_dir', tmp_path / 'out')
    assert code == 0, said
    formats = {kind: Template(AutoTokenizer.from_pretrained(tiny), kind).hash for kind in ('chat', 'safe-rlhf')}
    assert len(set(formats.values())) == 2
    assert {row['template'] for row in rows_of(tmp_path / 'out')} == {formats['safe-rlhf']}


def test_a_row_says_what_was_drawn_from_what(sampled):
    rows = rows_of(sampled)
    assert [row['sample_id'] for row in rows] == [0, 1] * 12
    assert len({row['prompt_id'] for row in rows}) == 12
    for row in rows:
        turns = [message['content'] for message in row['prompt']]
        assert row['prompt_id'] == prompt_name(prompt_hash(turns))
        assert len(row['token_ids']) == len(row['log_probs']) <= 8
        assert max(row['log_probs']) <= 0
        assert row['is_finished'] == (len(row['token_ids']) < 8) or len(row['token_ids']) == 8
        assert row['law'] == {'policy': 1.0, 'reference': 0.0, 'temperature': 1.0}
        assert row['settings']['seed'] == 42
    record = json.loads((sampled / 'safe_align.json').read_text())
    assert (record['kind'], record['summary']['responses']) == ('responses', 24)
    assert len((sampled / 'prompts.hashes').read_text().split()) == 12
    assert not (sampled / 'parts').exists()


def test_the_batch_size_and_the_number_of_processes_change_nothing(stages, asked, sampled, tmp_path):
    code, said = stages.run(SAMPLE, *asked, '--generation_batch_size', 128, '--output_dir', tmp_path / 'wide')
    assert code == 0, said
    same_rows(rows_of(tmp_path / 'wide'), rows_of(sampled))
    two = stages.launch(2, SAMPLE, *asked, '--output_dir', tmp_path / 'two')
    assert [stage.wait() for stage in two] == [0, 0], two[0].said
    same_rows(rows_of(tmp_path / 'two'), rows_of(sampled))


def test_a_seed_and_an_iteration_draw_anew(stages, asked, sampled, tmp_path):
    texts = [[row['response'] for row in rows_of(sampled)]]
    for name, more in (('seed', ('--seed', 7)), ('iteration', ('--iteration', 1))):
        assert stages.run(SAMPLE, *asked, *more, '--output_dir', tmp_path / name)[0] == 0
        texts.append([row['response'] for row in rows_of(tmp_path / name)])
    assert all(a != b for n, a in enumerate(texts) for b in texts[:n])


def test_a_killed_run_goes_on_and_leaves_the_same_rows(stages, asked, sampled, tmp_path):
    expected, draw = rows_of(sampled), random.Random(0)
    place, kills = tmp_path / 'killed', 0
    part = place / 'parts' / '0.jsonl'
    asked = (*asked, '--generation_batch_size', 2, '--output_dir', place)  # a prompt at a time
    while not (place / 'manifest.json').exists():
        before = part.stat().st_size if part.exists() else 0
        stage = stages.start(SAMPLE, *asked)
        grown = before + draw.randrange(1, 4000)
        wait_for(lambda: (part.exists() and part.stat().st_size >= grown) or (place / 'manifest.json').exists(), stage)  # noqa: B023
        kills += kill([stage]) == [-signal.SIGKILL]
        if part.exists() and draw.random() < 0.5:
            os.truncate(part, part.stat().st_size - draw.randrange(1, 20))  # as if the power had failed
    assert kills > 2
    same_rows(rows_of(place), expected)
    code, said = stages.run(SAMPLE, *asked)
    assert (code, 'holds this run, finished' in said) == (0, True)


def test_killed_when_its_result_is_whole_it_is_tidied_up_by_the_same_command(stages, asked, sampled, tmp_path):
    place = shutil.copytree(sampled, tmp_path / 'out')
    (place / 'parts').mkdir()
    shutil.copy(place / 'responses.jsonl', place / 'parts' / '0.jsonl')
    code, said = stages.run(SAMPLE, *asked, '--output_dir', place)
    assert (code, 'holds this run, finished' in said) == (0, True)
    assert {path.name for path in place.iterdir()} == {path.name for path in sampled.iterdir()}


def test_what_is_left_by_two_processes_is_finished_by_one(stages, asked, sampled, tmp_path):
    place = tmp_path / 'out'
    two = stages.launch(2, SAMPLE, *asked, '--generation_batch_size', 2, '--output_dir', place)
    wait_for(lambda: all((place / 'parts' / f'{n}.jsonl').exists() and
                         (place / 'parts' / f'{n}.jsonl').stat().st_size for n in (0, 1)), two[0])  # fmt: skip
    kill(two)
    code, said = stages.run(SAMPLE, *asked, '--generation_batch_size', 2, '--output_dir', place)
    assert code == 0, said
    assert 'of 12 prompts are answered already' in said or 'finished' in said
    same_rows(rows_of(place), rows_of(sampled))


@pytest.mark.parametrize('sampler', ['ref', 'gshf', 'mixp', 'temperature', 'best_of_n'])
def test_every_sampler_draws(sampler, stages, asked, tiny, rules, tmp_path):
    more = {
        'temperature': (), 'best_of_n': ('--plugin', rules, '--reward_model_name_or_path', 'function:letters'),
    }.get(sampler, ('--ref_model_name_or_path', tiny))  # fmt: skip
    code, said = stages.run(SAMPLE, *asked, '--sampler', sampler, *more, '--output_dir', tmp_path / 'out')
    assert code == 0, said
    rows = rows_of(tmp_path / 'out')
    assert len(rows) == 24
    laws = [tuple(row['law'].values()) for row in rows[:2]]
    assert laws == {
        'ref': [(0, 1, 1), (0, 1, 1)], 'gshf': [(0, 1, 1), (1, 0, 1)], 'mixp': [(1.5, -0.5, 1), (0.5, 0.5, 1)],
        'temperature': [(1, 0, 0.7), (1, 0, 1.3)], 'best_of_n': [(1, 0, 1), (1, 0, 1)],
    }[sampler]  # fmt: skip


def test_the_best_of_four_is_better(stages, asked, sampled, rules, tmp_path):
    more = ('--sampler', 'best_of_n', '--plugin', rules, '--reward_model_name_or_path', 'function:letters')
    assert stages.run(SAMPLE, *asked, *more, '--output_dir', tmp_path / 'out')[0] == 0
    lengths = [[len(row['response']) for row in rows_of(place)] for place in (sampled, tmp_path / 'out')]
    assert sum(lengths[1]) > sum(lengths[0])


def test_feedback_trains(stages, judged, tiny, tmp_path):
    for kind, loss in (('pairwise', 'dpo'), ('pointwise', 'kto')):
        code, said = stages.run(ANNOTATE, *judged, '--feedback_type', kind, '--output_dir', tmp_path / kind)
        assert code == 0, said
        code, said = stages.run(
            LEARN, '--model_name_or_path', tiny, '--datasets', f'jsonl:1:{tmp_path / kind / "feedback.jsonl"}',
            '--loss', loss, '--max_length', 96, *HERE, '--output_dir', tmp_path / loss,
        )  # fmt: skip
        assert code == 0, said
        rows, summary = rows_of(tmp_path / kind, 'feedback'), json.loads((tmp_path / kind / 'summary.json').read_text())
        assert len(rows) == summary['rows']
        assert f'jsonl: {len(rows)} of {len(rows)} rows' in said
        assert summary['rows'] + sum(summary['dropped'].values()) == (12 if kind == 'pairwise' else 24)


def test_an_annotator_that_fails_keeps_what_was_done(stages, judged, rules, tmp_path):
    stop, calls = rules.with_name('stop'), rules.with_name('calls')
    asked = (*judged, '--reward_model_name_or_path', 'function:breaks', '--output_dir', tmp_path / 'out')
    stop.touch()
    code, said = stages.run(ANNOTATE, *asked)
    assert code == 2
    assert 'KeyError' in said.splitlines()[-1]
    assert len(calls.read_text()) == 15
    stop.unlink()
    code, said = stages.run(ANNOTATE, *asked)
    assert code == 0, said
    assert '7 of 12 prompts are annotated already' in said
    assert len(calls.read_text()) == 15 + 24 - 14


class TestBadInput:
    def test_a_sampler_that_is_not_there(self, fails, asked):
        assert 'did you mean mixp?' in fails('online.sample', *asked, '--sampler', 'mixq')

    def test_a_sampler_without_its_reference(self, fails, asked):
        assert 'give --ref_model_name_or_path' in fails('online.sample', *asked, '--sampler', 'mixp')

    def test_a_reference_that_nobody_reads(self, fails, asked, tiny):
        assert 'leave it out' in fails('online.sample', *asked, '--ref_model_name_or_path', tiny)

    def test_an_odd_number_of_responses_in_halves(self, fails, asked, tiny):
        more = ('--sampler', 'mixp', '--ref_model_name_or_path', tiny, '--num_return_sequences', 3)
        assert 'draws as many from one law as from another' in fails('online.sample', *asked, *more)

    def test_options_of_a_sampler(self, fails, asked):
        assert 'temperature has low, high' in fails(
            'online.sample', *asked, '--sampler', 'temperature', '--sampler_options', 'hi=3'
        )

    def test_a_reference_of_another_vocabulary(self, fails, asked, tiny, tmp_path):
        other = Path(shutil.copytree(tiny, tmp_path / 'other'))
        tokenizer = AutoTokenizer.from_pretrained(other)
        tokenizer.add_tokens(['<new>'])
        tokenizer.save_pretrained(other)
        more = ('--sampler', 'mixp', '--ref_model_name_or_path', other)
        assert 'its tokenizer does not match' in fails('online.sample', *asked, *more)

    def test_a_law_of_neither_model(self, fails, asked, tiny):
        more = (
            '--sampler',
            'mixp',
            '--ref_model_name_or_path',
            tiny,
            '--sampler_options',
            'policy_1=0',
            'reference_1=0',
        )
        assert 'a law of neither model' in fails('online.sample', *asked, *more)

    def test_best_of_nothing(self, fails, asked):
        assert 'by which it chooses' in fails('online.sample', *asked, '--sampler', 'best_of_n')

    def test_no_responses(self, fails, judged, tmp_path):
        (tmp_path / 'none.jsonl').touch()
        assert 'there are no responses' in fails('online.annotate', *judged, '--responses', tmp_path / 'none.jsonl')

    def test_pairs_of_single_responses(self, fails, judged, sampled, tmp_path):
        rows = [row for row in rows_of(sampled) if row['sample_id'] == 0]
        (tmp_path / 'one.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
        assert 'a pair takes two' in fails('online.annotate', *judged, '--responses', tmp_path / 'one.jsonl')

    def test_no_annotator_or_not_its_model(self, fails, judged):
        assert 'did you mean score_model?' in fails('online.annotate', *judged, '--annotator', 'score_modl')
        assert 'needs --cost_model_name_or_path' in fails(
            'online.annotate', *judged, '--annotator', 'reward_minus_cost'
        )

    def test_only_ties(self, ends, judged):
        code, said = ends('online.annotate', *judged, '--min_gap', 9)
        assert code == 2
        assert 'no pair is left: 12 tie' in said.splitlines()[-1]

    def test_a_border_that_is_no_number(self, fails, judged):
        assert 'mean or median was expected' in fails(
            'online.annotate', *judged, '--feedback_type', 'pointwise', '--desirable_from', 'middle'
        )


def test_responses_to_prompts_that_have_changed_since(stages, asked, starter, tmp_path):
    lines = (starter / 'train.jsonl').read_text(encoding='utf-8').splitlines()
    data, place = tmp_path / 'data.jsonl', tmp_path / 'out'
    data.write_text('\n'.join(lines[:6]))
    asked = (*asked, '--datasets', f'jsonl:1:{data}', '--generation_batch_size', 2, '--output_dir', place)
    stage = stages.start(SAMPLE, *asked)
    part = place / 'parts' / '0.jsonl'
    wait_for(lambda: part.exists() and part.stat().st_size, stage)
    kill([stage])
    data.write_text('\n'.join(lines[20:26]))
    code, said = stages.run(SAMPLE, *asked)
    assert code == 2
    assert 'prompts that are not in --datasets; they have changed since' in said
