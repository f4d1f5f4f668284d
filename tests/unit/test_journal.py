"""Rows outlive the process that appended them: none is lost that `append` returned for, none comes twice or half."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest

from safe_align.config import UserError
from safe_align.remote.journal import BLOCK, Journal

ROWS = [
    {'n': 0, 'text': 'a\nb\u2028c'},
    {'n': 1, 'text': '\ud800 \u00e9 \0'},
    {'n': 2, 'ids': None, 'log_probs': [-0.5]},
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'deep/rows.jsonl'


@pytest.fixture
def said():
    return []


def rows_of(path, said=None):
    with Journal(path, (said if said is not None else []).append) as journal:
        return list(journal.rows())


def test_rows_come_back_in_order_whatever_they_hold(path, said):
    with Journal(path, said.append) as journal:
        assert list(journal.rows()) == []
        journal.append(ROWS[:1])
        journal.append([])
        journal.append(iter(ROWS[1:]))
        assert list(journal.rows()) == ROWS
    assert rows_of(path, said) == ROWS
    assert len(path.read_bytes().splitlines()) == 3
    assert said == []


@pytest.mark.parametrize('lost', [1, 2, 5, BLOCK, 2 * BLOCK + 7])
def test_a_half_written_last_line_is_removed_and_told_of(path, said, lost):
    with Journal(path, said.append) as journal:
        journal.append(ROWS)
        journal.append([{'text': 'x' * (3 * BLOCK)}])
    whole = path.read_bytes()
    path.write_bytes(whole[: -1 - lost])
    assert rows_of(path, said) == ROWS
    (told,) = said
    assert 'last line was half written' in told
    assert 'x' not in told.removeprefix(str(path))
    with Journal(path, said.append) as journal:
        journal.append(ROWS[:1])
    assert rows_of(path, said) == [*ROWS, ROWS[0]]
    assert len(said) == 1


def test_a_file_of_nothing_but_half_a_line_is_empty_then(path, said):
    path.parent.mkdir()
    path.write_bytes(b'{"n": 1, "te')
    assert rows_of(path, said) == []
    assert path.read_bytes() == b''
    assert len(said) == 1


def test_a_line_that_lacks_its_end_alone_is_kept(path, said):
    path.parent.mkdir()
    path.write_bytes(b'{"n": 1}\n{"n": 2}')
    with Journal(path, said.append) as journal:
        journal.append([{'n': 3}])
        assert [row['n'] for row in journal.rows()] == [1, 2, 3]
    assert said == []


@pytest.mark.parametrize('line', [b'{"n": 1', b'', b'[1]', b'\xff\xfe', b'\0\0\0', b'{"n": 1}{"n": 2}', b'[' * 100_000])
def test_a_line_in_the_middle_that_is_no_row_is_named(path, line):
    path.parent.mkdir()
    path.write_bytes(b'{"n": 0}\n' + line + b'\n{"n": 2}\n')
    with pytest.raises(UserError, match=r'rows.jsonl, line 2: is no JSON object: ') as refused:
        rows_of(path)
    assert len(str(refused.value)) < len(str(path)) + 120
    assert path.read_bytes() == b'{"n": 0}\n' + line + b'\n{"n": 2}\n'


def test_two_runs_cannot_write_at_once(path, said):
    with (
        Journal(path, said.append) as journal,
        pytest.raises(UserError, match=r'rows.jsonl: another run holds it'),
    ):
        Journal(path, said.append)
    journal.close()
    assert rows_of(path) == []


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path, said):
    (tmp_path / 'file').write_text('')
    for path in (tmp_path, tmp_path / 'file/rows.jsonl'):
        with pytest.raises(UserError, match=r': cannot be opened: '):
            Journal(path, said.append)


def test_numbers_that_json_does_not_know_are_refused_before_anything_is_written(path, said):
    with Journal(path, said.append) as journal:
        with pytest.raises(ValueError, match='JSON compliant'):
            journal.append([{'n': 1}, {'n': float('nan')}])
        assert list(journal.rows()) == []


@pytest.mark.parametrize('failure', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_an_append_that_fails_half_way_leaves_nothing(path, said, monkeypatch, failure):
    write, calls = os.write, []

    def half(file, data):
        calls.append(len(data))
        if len(calls) % 2 == 0:
            raise failure
        return write(file, data[: len(data) // 2])

    with Journal(path, said.append) as journal:
        journal.append(ROWS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(os, 'write', half)
            with pytest.raises((UserError, KeyboardInterrupt), match=r'No space left on device|^$'):
                journal.append(ROWS[1:])
        journal.append(ROWS[2:])
        assert list(journal.rows()) == [ROWS[0], ROWS[2]]


def test_what_the_system_takes_in_parts_is_written_whole(path, said, monkeypatch):
    write = os.write
    with Journal(path, said.append) as journal:
        monkeypatch.setattr(os, 'write', lambda file, data: write(file, data[:7]))
        journal.append(ROWS)
        assert list(journal.rows()) == ROWS


def appends_until_killed(path, told: int) -> None:
    """In a process of its own: append rows of many sizes, and tell of each once `append` has returned."""
    with Journal(path, lambda _: None) as journal:
        n = sum(1 for _ in journal.rows())
        while True:
            size = 1 + n % 3
            journal.append({'n': n + k, 'text': 'é' * (n * 7919 % 60_000)} for k in range(size))
            n += size
            os.write(told, n.to_bytes(8, 'big'))


def test_a_run_killed_at_any_moment_loses_no_row_that_append_returned_for(path, said):
    rng = random.Random(0)
    promised = 0
    for _ in range(25):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                appends_until_killed(path, write)
            finally:
                os._exit(1)
        os.close(write)
        assert len(os.read(read, 8)) == 8  # it is at work
        time.sleep(rng.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        told = b''
        while block := os.read(read, 1 << 16):
            told += block
        os.close(read)
        promised = int.from_bytes(told[-8:], 'big') if told else promised
        rows = rows_of(path, said)
        assert [row['n'] for row in rows] == list(range(len(rows)))  # none lost, none twice
        assert len(rows) >= promised
        promised = len(rows)
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
