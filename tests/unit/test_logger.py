"""Numbers on disk and in trackers: exactly once, as JSON that every reader takes, and no tracker stops a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_align import distributed, logger
from safe_align.config import UserError
from safe_align.logger import Logger

ROOT = Path(__file__).parents[2]
SECRET = 'hunter2hunter2'
SCRIPT = """
import socket, sys
from pathlib import Path
from safe_align.logger import Logger

connect = socket.socket.connect

def local_only(self, address):  # a tracker may talk to a process of its own
    assert isinstance(address, (str, bytes)) or address[0] in ('127.0.0.1', '::1', 'localhost'), address
    return connect(self, address)

socket.socket.connect = local_only
log = Logger(Path(sys.argv[1]), 'finetune', sys.argv[2], config={'lr': 0.5}, run_name='try')
assert log.tracker is not None
log.start(0, 3)
for step in (1, 2, 3):
    log.log(step, {'train/loss': 1 / step, 'train/odd': float('nan')}, tokens=10.0)
assert log.tracker is not None
log.close()
"""


def rows(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]


def test_lines_after_the_step_that_a_run_goes_on_from_are_forgotten(tmp_path):
    log = Logger(tmp_path, 'toy')
    log.start(0, 5)
    for step in (0, 1, 2, 3, 3, 4):
        log.log(step, {'train/loss': step / 3})
    before = (tmp_path / 'metrics.jsonl').read_bytes()
    log.start(3, 5)
    log.log(4, {'train/loss': 4 / 3})
    assert (tmp_path / 'metrics.jsonl').read_bytes() == before
    log.start(0, 5)
    assert not rows(tmp_path)


@pytest.mark.parametrize('torn', ['{"step": 3, "train/l', '{"step": 3', '{', '{"a": 1}', '{"step": "x"}'])
def test_a_torn_last_line_is_forgotten(torn, tmp_path):
    log = Logger(tmp_path, 'toy')
    log.start(0, 5)
    log.log(1, {'train/loss': 1.0})
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write(torn)
    log.start(5, 5)
    assert rows(tmp_path) == [{'step': 1, 'train/loss': 1.0}]


def test_a_kill_while_lines_are_forgotten_loses_none(tmp_path, monkeypatch):
    log = Logger(tmp_path, 'toy')
    log.start(0, 5)
    log.log(1, {'train/loss': 1.0})
    monkeypatch.setattr('os.fsync', lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        log.start(1, 5)
    assert rows(tmp_path) == [{'step': 1, 'train/loss': 1.0}]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    log = Logger(tmp_path, 'toy')
    log.log(1, {'a': float('nan'), 'b': float('inf'), 'c': -float('inf'), 'd': 0.1})
    assert rows(tmp_path) == [{'step': 1, 'a': None, 'b': None, 'c': None, 'd': 0.1}]


def test_other_processes_write_and_say_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distributed, 'is_main', lambda: False)
    log = Logger(tmp_path, 'toy', 'wandb')
    log.start(0, 2)
    log.log(1, {'train/loss': 1.0})
    log.say('hello')
    log.close()
    assert not [*tmp_path.iterdir()]
    assert capsys.readouterr().err == ''


def test_a_disk_that_is_full_is_one_line(tmp_path):
    log = Logger(tmp_path / 'not there', 'toy')
    with pytest.raises(UserError, match=r'metrics\.jsonl: cannot be written'):
        log.log(1, {'train/loss': 1.0})


@pytest.mark.parametrize('where', ['__init__', 'log', 'close'])
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(where, tmp_path, monkeypatch, capsys):
    calls = []

    class Tracker:
        def __init__(self, *_):
            self.meet('__init__')

        def meet(self, name, *_):
            calls.append(name)
            if name == where:
                raise ConnectionError('no route to host')

        def log(self, metrics, step):
            self.meet('log')

        def close(self):
            self.meet('close')

    monkeypatch.setattr(logger, '_Wandb', Tracker)
    log = Logger(tmp_path, 'toy', 'wandb')
    log.start(0, 2)
    for step in (1, 2):
        log.log(step, {'train/loss': 1.0}, tokens=1.0)
    log.close()
    assert len(rows(tmp_path)) == 2
    assert capsys.readouterr().err.count('the tracker failed and is left out from here: ConnectionError: no route') == 1
    assert calls.count(where) == 1


def track(kind: str, folder: Path, **more: str) -> subprocess.CompletedProcess:
    """Log three steps in a process of its own, with a home of its own and a secret in its environment."""
    (folder / 'home').mkdir()
    (folder / 'run').mkdir()
    kept = {key: os.environ[key] for key in ('PATH', 'LD_LIBRARY_PATH') if key in os.environ}
    environment = {**kept, 'HOME': str(folder / 'home'), 'MY_TOKEN': SECRET, 'PYTHONPATH': str(ROOT), **more}
    return subprocess.run(
        [sys.executable, '-c', SCRIPT, str(folder / 'run'), kind], env=environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=120, cwd=folder,
    )  # fmt: skip


def assert_no_secret(folder: Path) -> None:
    for path in folder.rglob('*'):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize('more', [{}, {'WANDB_API_KEY': SECRET * 3, 'WANDB_MODE': 'offline'}], ids=['no key', 'key'])
def test_wandb_without_a_key_asks_for_nothing_and_no_secret_is_written(more, tmp_path):
    pytest.importorskip('wandb')
    done = track('wandb', tmp_path, **more)
    assert done.returncode == 0, done.stderr
    assert 'tracker failed' not in done.stderr
    assert len(rows(tmp_path / 'run')) == 3
    assert [*(tmp_path / 'run').rglob('*.wandb')]
    assert_no_secret(tmp_path)


def test_the_place_of_a_tracker_may_begin_at_home(tmp_path, monkeypatch):
    seen: list[Path] = []
    monkeypatch.setattr('safe_align.logger._Tensorboard', lambda place, *_: seen.append(place))
    Logger(tmp_path, 'x', 'tensorboard', '~/logs')
    assert seen == [Path('~/logs').expanduser()]


def test_tensorboard_reads_what_was_logged_and_no_secret_is_written(tmp_path):
    accumulators = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    done = track('tensorboard', tmp_path)
    assert done.returncode == 0, done.stderr
    events = accumulators.EventAccumulator(str(tmp_path / 'run/tensorboard')).Reload()
    assert [event.step for event in events.Scalars('train/loss')] == [1, 2, 3]
    assert_no_secret(tmp_path)


@pytest.mark.parametrize(
    ('environment', 'netrc', 'expected'),
    [
        ({}, None, False),
        ({'WANDB_API_KEY': 'x'}, None, True),
        ({}, 'machine api.wandb.ai login user password x\n', True),
        ({}, 'machine github.com login user password x\n', False),
        ({'WANDB_BASE_URL': 'https://wandb.example.org/'}, 'machine wandb.example.org login user password x\n', True),
        ({}, 'no netrc at all', False),
    ],
)
def test_a_key_is_one_in_the_environment_or_from_a_login(environment, netrc, expected, tmp_path, monkeypatch):
    for name in ('WANDB_API_KEY', 'WANDB_BASE_URL'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('NETRC', str(tmp_path / 'netrc'))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc is not None:
        (tmp_path / 'netrc').write_text(netrc)
        (tmp_path / 'netrc').chmod(0o600)
    assert logger._has_key() is expected
