"""An output directory is whole or not there, belongs to one run, and loses nothing that is not ours."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from forks import kill, wait_for

from safe_align.checkpoint import verify
from safe_align.config import UserError, parse
from safe_align.finetune.__main__ import FinetuneConfig
from safe_align.handoff import start_run
from safe_align.models.record import record_of
from safe_align.ownership import lock

TIMED = {'safe_align.json', 'arguments.json'}  # with the time of day and the directory's own name


@pytest.fixture(scope='module')
def toy(stages):
    """`toy(directory)` fits a line there: exit code and output."""
    return lambda directory, *more, **options: stages.run('toys', '--output_dir', directory, *more, **options)


@pytest.fixture(scope='module')
def finished(toy, tmp_path_factory):
    """Finished runs by their learning rate."""
    found = {}
    for lr in ('0.1', '0.2'):
        found[lr] = tmp_path_factory.mktemp('finished') / 'run'
        code, said = toy(found[lr], '--lr', lr)
        assert code == 0, said
    return found


@pytest.fixture
def directory(finished, tmp_path):
    """A finished run of its own."""
    return shutil.copytree(finished['0.1'], tmp_path / 'run')


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = verify(one), verify(other)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= TIMED


def snapshot(directory: Path) -> dict:
    """Content and time of every file."""
    files = (path for path in directory.rglob('*') if path.is_file())
    return {str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def assert_refused(result: tuple[int, str], *words: str) -> None:
    code, said = result
    assert code == 2, said
    assert 'Traceback' not in said
    assert len([line for line in said.splitlines() if 'error: ' in line]) == 1, said
    for word in words:
        assert word in said


def left_at_any_touch(stages, folder: Path, *options) -> list[Path]:
    """All that `folder` would hold, were the run with its output in `folder / 'run'` killed at one touch or another."""
    place = folder.with_name('left')
    stage = stages.start('toys', '--output_dir', folder / 'run', *options, copies=(folder, place))
    assert stage.wait() == 0, stage.said
    return sorted(place.iterdir(), key=lambda one: int(one.name))


def test_a_run_killed_at_any_touch_of_its_directory_ends_the_same(stages, toy, finished, tmp_path):
    (tmp_path / 'here').mkdir()
    left = left_at_any_touch(stages, tmp_path / 'here')
    for folder in left:
        code, said = toy(folder / 'run')
        assert code == 0, f'touch {folder.name}: {said}'
        assert_same(folder / 'run', finished['0.1'])
    assert len(left) > 40


def test_a_kill_leaves_what_was_copied_at_some_touch(stages, tmp_path):
    def sizes(root: Path) -> dict[Path, int]:
        files = (path for path in root.rglob('*') if path.is_file() and path.name not in TIMED)
        return {path.relative_to(root): path.stat().st_size for path in files}

    (tmp_path / 'here').mkdir()
    left = [sizes(folder) for folder in left_at_any_touch(stages, tmp_path / 'here')]
    for touch in (10, 60, 110):
        killed = tmp_path / f'killed-{touch}'
        killed.mkdir()
        command = ('toys', '--output_dir', killed / 'run')
        assert stages.start(*command, dies_at=(str(killed), touch)).wait() == -signal.SIGKILL
        assert sizes(killed) in left


def test_an_overwrite_killed_at_any_touch_leaves_no_mixture_of_two_runs(stages, toy, finished, tmp_path):
    shutil.copytree(finished['0.1'], tmp_path / 'here/run')
    (tmp_path / 'here/run/notes.txt').write_text('mine')
    left = left_at_any_touch(stages, tmp_path / 'here', '--lr', '0.2', '--overwrite')
    for folder in left:
        directory = folder / 'run'
        code, said = toy(directory, '--lr', '0.2')
        if code != 0:
            assert_refused((code, said))
            assert toy(directory, '--lr', '0.2', '--overwrite')[0] == 0
        assert_same(directory, finished['0.2'])
        assert (directory / 'notes.txt').read_text() == 'mine'
    assert len(left) > 40


def test_a_finished_run_started_again_says_so_and_touches_nothing(toy, directory):
    before = snapshot(directory)
    code, said = toy(directory)
    assert code == 0
    assert 'holds this run, finished; --overwrite does it again' in said
    assert snapshot(directory) == before


def test_where_it_goes_and_how_it_is_told_are_no_other_arguments(toy, directory, tmp_path):
    moved = directory.rename(tmp_path / 'moved')
    assert toy(moved, '--log_run_name', 'another')[0] == 0


def test_other_arguments_are_refused_and_change_nothing(toy, directory):
    before = snapshot(directory)
    assert_refused(toy(directory, '--lr', '0.2'), '--lr 0.1 there, 0.2 here', '--overwrite')
    assert snapshot(directory) == before


def test_overwrite_does_it_again_and_leaves_what_is_not_ours(toy, directory, finished):
    for name in ('notes.txt', 'plots/loss.svg', 'wandb/run'):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text('mine')
    assert toy(directory, '--lr', '0.2', '--overwrite')[0] == 0
    assert_same(directory, finished['0.2'])
    assert {(directory / name).read_text() for name in ('notes.txt', 'plots/loss.svg', 'wandb/run')} == {'mine'}


@pytest.mark.parametrize('more', [[], ['--overwrite']])
@pytest.mark.parametrize('name', ['README.md', 'model.safetensors', 'checkpoints'])
def test_a_directory_of_something_else_is_refused_even_to_overwrite(name, more, toy, tmp_path):
    (tmp_path / name).write_text('mine')
    before = snapshot(tmp_path)
    assert_refused(toy(tmp_path, *more), name)
    assert {key: value for key, value in snapshot(tmp_path).items() if key != '.lock'} == before


def test_a_damaged_finished_run_is_refused(toy, directory):
    with (directory / 'model.safetensors').open('r+b') as file:
        file.seek(150)
        file.write(b'!')
    assert_refused(toy(directory), 'model.safetensors is not what was written', '--overwrite')


@pytest.mark.parametrize(
    ('name', 'text', 'part'),
    [
        ('arguments.json', '', 'arguments.json is damaged'), ('arguments.json', '[1]', 'arguments.json is damaged'),
        ('.origin.json', '{', '.origin.json is damaged'), ('.origin.json', '{}', 'holds another run (None there'),
    ],
)  # fmt: skip
def test_a_damaged_record_of_whose_run_it_is_is_one_line(toy, directory, name, text, part):
    (directory / name).write_text(text)
    assert_refused(toy(directory, '--lr', '0.1'), str(directory), part)


def test_the_card_is_the_users_to_edit(toy, directory):
    (directory / 'README.md').write_text('# Mine')
    assert toy(directory)[0] == 0


def test_two_processes_on_one_directory_the_second_refuses(stages, toy, tmp_path, tiny, starter):
    directory = tmp_path / 'run'
    command = [
        'safe_align.finetune', '--model_name_or_path', tiny, '--datasets', f'jsonl:1:{starter}/train.jsonl',
        '--log_type', 'none', '--bf16', False, '--epochs', 100, '--output_dir', directory,
    ]  # fmt: skip
    first = stages.start(*command)
    wait_for(lambda: (directory / 'metrics.jsonl').exists(), first)
    assert_refused(stages.run(*command), 'another process is writing it')
    assert kill([first]) == [-signal.SIGKILL]


def sft_of(
    stages, parent: Path, directory: Path, starter: Path, stage: str = 'safe_align.values.reward'
) -> tuple[int, str]:
    return stages.run(
        stage, '--model_name_or_path', parent, '--datasets', f'jsonl:8/-1:{starter}/train.jsonl', '--log_type', 'none',
        '--bf16', False, '--max_length', 64, '--output_dir', directory,
    )  # fmt: skip


@pytest.mark.parametrize('ended', [True, False])
def test_a_changed_parent_is_noticed(ended, stages, tiny, starter, tmp_path):
    parent, directory = shutil.copytree(tiny, tmp_path / 'parent'), tmp_path / 'run'
    assert sft_of(stages, parent, directory, starter)[0] == 0
    if not ended:
        (directory / 'manifest.json').unlink()
    weights = parent / 'model.safetensors'
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    before = snapshot(directory)
    assert_refused(sft_of(stages, parent, directory, starter), '--model_name_or_path has changed')
    assert snapshot(directory) == before


@pytest.mark.parametrize('ended', [True, False])
def test_rows_that_have_changed_are_noticed(ended, stages, tiny, starter, tmp_path):
    shutil.copy(starter / 'train.jsonl', tmp_path)
    directory = tmp_path / 'run'
    assert sft_of(stages, tiny, directory, tmp_path, stage='safe_align.finetune')[0] == 0
    if not ended:
        (directory / 'manifest.json').unlink()
    lines = (tmp_path / 'train.jsonl').read_text().splitlines(keepends=True)
    (tmp_path / 'train.jsonl').write_text(''.join(reversed(lines)))
    before = snapshot(directory)
    again = sft_of(stages, tiny, directory, tmp_path, stage='safe_align.finetune')
    assert_refused(again, 'data set jsonl has changed')
    assert snapshot(directory) == before


def test_another_stage_with_the_same_options_is_another_run(stages, tiny, starter, tmp_path):
    assert sft_of(stages, tiny, tmp_path / 'run', starter)[0] == 0
    again = sft_of(stages, tiny, tmp_path / 'run', starter, stage='safe_align.values.cost')
    assert_refused(again, 'reward there, cost here')


def test_parents_that_are_damaged_or_unfinished_are_refused(stages, tiny, starter, tmp_path):
    parent = tmp_path / 'parent'
    assert sft_of(stages, tiny, parent, starter, stage='safe_align.finetune')[0] == 0
    assert record_of(str(parent))['kind'] == 'policy'
    (parent / 'manifest.json').rename(tmp_path / 'manifest.json')
    assert_refused(sft_of(stages, parent, tmp_path / 'run', starter), '--model_name_or_path', 'has not ended')
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    manifest['tokenizer.json']['blake2b'] = '0' * 64
    (parent / 'manifest.json').write_text(json.dumps(manifest))
    assert_refused(sft_of(stages, parent, tmp_path / 'run', starter), '--model_name_or_path', 'tokenizer.json is not')


def started(directory: Path, model: Path, *more: str) -> None:
    """As far as taking the directory."""
    options = ('--model_name_or_path', str(model), '--datasets', 'alpaca', '--output_dir', str(directory), *more)
    start_run(parse(FinetuneConfig, options), 'finetune', {'model_name_or_path': str(model)})


def test_a_model_is_not_replaced_by_what_starts_from_it(tiny):
    with pytest.raises(UserError, match='is --model_name_or_path too, which would be lost'):
        started(tiny, tiny / '..' / tiny.name)
    assert (tiny / 'config.json').is_file()


def test_what_a_run_starts_from_is_not_lost_with_the_directory_that_it_overwrites(tmp_path):
    run, averaged, adapter = tmp_path / 'run', tmp_path / 'run' / 'averaged', tmp_path / 'adapter'
    for folder in (averaged, adapter):
        folder.mkdir(parents=True)
    (adapter / 'adapter_config.json').write_text(json.dumps({'base_model_name_or_path': str(run)}))
    (run / 'feedback.jsonl').touch()
    data = ('--datasets', f'jsonl:1:{run / "feedback.jsonl"}')
    for model, more, message in (
        (averaged, (), 'holds --model_name_or_path too'), (adapter, (), 'is the base of --model_name_or_path too'),
        (tmp_path / 'other', data, 'holds --train_datasets jsonl:1:.*feedback.jsonl too, which would be lost'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            started(run, model, '--overwrite', *more)
    assert {path.name for path in run.iterdir()} == {'averaged', 'feedback.jsonl'}


def test_a_finished_run_lets_its_directory_go(tmp_path):
    """Not when its memory is collected, which may be after the next run in the same process."""
    options = ('--model_name_or_path', 'base', '--datasets', 'alpaca', '--output_dir', str(tmp_path / 'run'))
    run = start_run(parse(FinetuneConfig, (*options, '--log_type', 'none')), 'finetune', {})
    with pytest.raises(UserError, match='another process is writing it'):
        lock(run.directory)
    run.finish('policy', lambda part: None)
    lock(run.directory).close()
