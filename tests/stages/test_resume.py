"""A run that is killed, told to end, out of disk or damaged goes on from its newest good checkpoint: the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from forks import kill, wait_for

from safe_align.checkpoint import verify

TIMED = {'safe_align.json', 'arguments.json'}  # with the time of day and the directory's own name
KILLS = 8
STAGES = {
    'safe_align.finetune': ['--need_eval', '--eval_split_ratio', 0.1],  # with dropout, so with random numbers
    'safe_align.values.cost': ['--normalize_score_during_training', '--normalizer_type', 'ExponentialMovingAverage'],
}


@pytest.fixture(scope='module')
def options(tmp_path_factory, starter, family, tiny):
    data = tmp_path_factory.mktemp('data') / 'rows.jsonl'
    data.write_text(''.join((starter / 'train.jsonl').read_text(encoding='utf-8').splitlines(True)[:24]))

    def of(stage: str, directory: Path, *more) -> list:
        model = family('gpt2', resid_pdrop=0.1, embd_pdrop=0.1) if stage.endswith('finetune') else tiny
        return [
            stage, '--model_name_or_path', model, '--datasets', f'jsonl:1:{data}', '--output_dir', directory,
            '--lr', 1e-3, '--max_length', 64, '--per_device_train_batch_size', 4, '--epochs', 2, '--save_interval', 2,
            '--log_type', 'none', '--bf16', False, *STAGES[stage], *more,
        ]  # fmt: skip

    return of


@pytest.fixture(scope='module')
def undisturbed(stages, options, tmp_path_factory):
    """The directory of each stage's run that nothing happened to, and how long it took."""
    found = {}
    for stage in STAGES:
        started, directory = time.monotonic(), tmp_path_factory.mktemp('undisturbed') / 'run'
        code, said = stages.run(*options(stage, directory))
        assert code == 0, said
        found[stage] = directory, time.monotonic() - started
    return found


@pytest.fixture
def finetune(stages, options, undisturbed, tmp_path):
    """`finetune(directory)` runs SFT there and compares its end; other options of `Forks.run` give (code, output)."""

    def run(directory: Path, *more, **limits) -> tuple[int, str]:
        code, said = stages.run(*options('safe_align.finetune', directory, *more), **limits)
        if code == 0:
            assert_same(directory, undisturbed['safe_align.finetune'][0])
        return code, said

    return run


@pytest.fixture(scope='module')
def killed(stages, options, tmp_path_factory):
    """A run of SFT that was killed as it began to save step 8: it has checkpoints of steps 4 and 6."""
    directory = tmp_path_factory.mktemp('killed') / 'run'
    stage = stages.start(*options('safe_align.finetune', directory), dies_at=('.step-8.partial', 1))
    assert stage.wait() == -signal.SIGKILL, stage.said
    return directory


@pytest.fixture
def halfway(killed, tmp_path):
    """A copy of `killed`."""
    return shutil.copytree(killed, tmp_path / 'halfway')


def assert_same(one: Path, other: Path) -> None:
    """Finished, whole, and the same bytes but for the time of day."""
    ours, theirs = verify(one), verify(other)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= TIMED
    records = [json.loads((directory / 'safe_align.json').read_text()) for directory in (one, other)]
    for key in ('final_metrics', 'parents', 'datasets', 'normalizer', 'template'):
        assert records[0].get(key) == records[1].get(key)
    assert not [*one.rglob('.*.partial'), *one.rglob('.finishing')]


def metrics_lines(directory: Path) -> int:
    path = directory / 'metrics.jsonl'
    return path.read_text().count('\n') if path.exists() else 0


def assert_one_line(said: str) -> None:
    assert 'Traceback' not in said
    assert sum('error: ' in line for line in said.splitlines()) == 1, said


@pytest.mark.parametrize('stage', STAGES)
def test_a_run_killed_at_random_moments_ends_like_one_never_killed(stage, stages, options, undisturbed, tmp_path):
    reference, seconds = undisturbed[stage]
    draw, kills, number = random.Random(stage), 0, 0
    while kills < KILLS:
        process = stages.start(*options(stage, tmp_path / str(number)))
        time.sleep(draw.uniform(0.1, 1.0) * seconds)
        (code,) = kill([process])
        if code == 0:  # it was done before
            assert_same(tmp_path / str(number), reference)
            number, seconds = number + 1, seconds * 0.9
        else:
            assert code == -signal.SIGKILL, process.said
            kills += 1
    code, said = stages.run(*options(stage, tmp_path / str(number)))
    assert code == 0, said
    assert_same(tmp_path / str(number), reference)


@pytest.mark.parametrize(('signum', 'expected'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_told_to_end_saves_its_last_step_and_goes_on_from_there(
    signum, expected, stages, options, finetune, tmp_path
):
    directory = tmp_path / 'run'
    stage = stages.start(*options('safe_align.finetune', directory))
    wait_for(lambda: metrics_lines(directory) > 3, stage)
    assert kill([stage], signum) == [expected]
    last = json.loads((directory / 'metrics.jsonl').read_text().splitlines()[-1])['step']
    assert f'told to end; saved at step {last}' in stage.said
    assert verify(directory / f'checkpoints/step-{last}')
    code, said = finetune(directory)
    assert code == 0
    assert f'goes on from step {last}' in said


def test_a_checkpoint_that_the_disk_has_no_room_for_leaves_the_one_before(finetune, halfway):
    sizes = {path.name: path.stat().st_size for path in (halfway / 'checkpoints/step-6').iterdir()}
    code, said = finetune(halfway, largest_file=sizes['model.safetensors'] - 1)
    assert code == 2
    assert_one_line(said)
    assert 'checkpoint of step 8 could not be written: File too large' in said
    assert sorted(path.name for path in (halfway / 'checkpoints').iterdir()) == ['step-4', 'step-6']
    assert verify(halfway / 'checkpoints/step-6')
    assert finetune(halfway)[0] == 0


def test_a_result_that_the_disk_has_no_room_for_is_written_by_the_next_start(finetune, undisturbed, tmp_path):
    size = (undisturbed['safe_align.finetune'][0] / 'model.safetensors').stat().st_size
    directory = tmp_path / 'run'
    never_save = ['--save_interval', 1000]
    code, said = finetune(directory, *never_save, largest_file=size - 1)
    assert code == 2
    assert_one_line(said)
    assert 'the result could not be written: File too large' in said
    assert {path.name for path in directory.iterdir()} == {'.lock', '.origin.json', 'arguments.json', 'metrics.jsonl'}
    assert finetune(directory, *never_save)[0] == 0


@pytest.mark.parametrize('largest', [100, 1500])  # bytes: the options have no room; the metrics have none
def test_a_full_disk_is_one_line_whatever_it_is_full_for(largest, finetune, tmp_path):
    directory = tmp_path / 'run'
    code, said = finetune(directory, largest_file=largest)
    assert code == 2, said
    assert_one_line(said)
    assert 'File too large' in said
    assert finetune(directory)[0] == 0


@pytest.mark.parametrize('name', ['manifest.json', 'model.safetensors', 'random.safetensors', 'state.json'])
def test_a_flipped_byte_in_the_newest_checkpoint_is_noticed_and_the_one_before_is_used(name, finetune, halfway):
    path = halfway / 'checkpoints/step-6' / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, said = finetune(halfway)
    assert code == 0
    assert 'a damaged checkpoint is passed over' in said
    assert 'goes on from step 4' in said


def test_with_no_good_checkpoint_a_run_starts_from_the_beginning(finetune, halfway):
    for path in halfway.glob('checkpoints/step-*/model.safetensors'):
        os.truncate(path, path.stat().st_size // 2)
    code, said = finetune(halfway)
    assert code == 0
    assert said.count('a damaged checkpoint is passed over') == 2


def test_what_a_killed_save_left_is_ignored_and_removed(finetune, halfway):
    folder = halfway / 'checkpoints'
    shutil.copytree(folder / 'step-6', folder / '.step-7.partial')
    shutil.copytree(folder / 'step-6', folder / 'step-9', ignore=shutil.ignore_patterns('manifest.json'))
    (folder / 'step-100').mkdir()
    (folder / 'step-last').mkdir()
    code, said = finetune(halfway)
    assert code == 0
    assert 'goes on from step 6' in said
    assert {path.name for path in folder.iterdir()} == {'step-10', 'step-12', 'step-last'}
