"""A courier asks the judge: it brings what it is told, and outlives a run that is killed by the answers due to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from servers import Scripted, chat, error
from test_judging import PAIRS, prefers_good, shown

from safe_align.config import UserError
from safe_align.remote import courier
from safe_align.remote.fields import Server
from safe_align.remote.journal import Journal
from safe_align.remote.judging import Judge

KEY = 'sk-a-key-of-the-environment'


def judged(url, path, say=print, pairs=PAIRS, **options):
    """Verdicts, and the judge."""
    with Journal(path, say, waits=True) as journal:
        judge = Judge(Server(url, **{'retries': 0, 'flag': 'judge', **options}), journal)
        return judge(pairs), judge


def test_it_brings_answers_and_then_what_it_died_of(tmp_path, monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', KEY)
    path = tmp_path / 'journal.jsonl'
    with Scripted(lambda asked, n: prefers_good(asked, n) if n < 5 else error(401, f'no {KEY}')) as server:
        with pytest.raises(UserError) as refused:
            judged(server.url, path, concurrency=1)
        assert re.fullmatch(
            r"--judge_url .* refuses the key .* \(401\): 'no \*\*\*'; 5 answers are kept", str(refused.value)
        )
        server.script = prefers_good
        verdicts, judge = judged(server.url, path)
    assert [verdict.result for verdict in verdicts] == ['first'] * 6
    assert judge.endpoint.usage.requests == 7
    assert len(path.read_bytes().splitlines()) == 12
    assert {asked.headers['authorization'] for asked in server.asked} == {f'Bearer {KEY}'}


def test_what_is_under_way_when_a_run_is_killed_is_waited_for_and_paid_for_once(tmp_path):
    path, said, waits = tmp_path / 'journal.jsonl', [], threading.Event()

    def slow(asked, n):
        assert n < 3 or waits.wait(60)  # for the second run to wait for it
        return prefers_good(asked, n)

    def say(line):
        said.append(line)
        server.script = prefers_good
        waits.set()

    with Scripted(slow) as server:
        child, end = os.fork(), time.monotonic() + 60
        if not child:
            try:
                judged(server.url, path, concurrency=3)
            finally:
                os._exit(1)
        while len(server.asked) < 6:  # three answers are there, and three are under way
            assert time.monotonic() < end
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        verdicts, judge = judged(server.url, path, say)
        assert len(server.asked) == len(server.delivered) == 12
    assert [verdict.result for verdict in verdicts] == ['first'] * 6
    assert judge.endpoint.usage.requests == 6
    assert [line.split(': ')[1] for line in said] == [
        'another run, or what is left of one, still writes to it; waiting for its end'
    ]


def test_a_run_that_ends_by_itself_leaves_nothing_that_is_due(tmp_path):
    """As by Ctrl-C, which a courier does not hear."""
    path, stopped = tmp_path / 'journal.jsonl', threading.Event()

    def slow(asked, n):
        assert {*shown(asked)} == {*PAIRS[0][1:]} or stopped.wait(60)  # both orders of the first pair, at once
        return prefers_good(asked, n)

    def stop(number, verdict):
        raise KeyboardInterrupt

    with Scripted(slow) as server:
        with Journal(path, print) as journal, pytest.raises(KeyboardInterrupt):
            Judge(Server(server.url, concurrency=2), journal)(PAIRS, stop)
        under_way = len(server.asked)
        stopped.set()
        Journal(path, print, waits=True).close()
        assert len(server.asked) == len(server.delivered) == len(path.read_bytes().splitlines())
    assert len(server.asked) <= under_way + 2  # those that were just being sent


def test_orders_that_were_cut_off_are_none():
    ended = subprocess.run([sys.executable, '-c', courier.COMMAND], input=b'{"parent": 1, "ser', check=True)
    assert ended.returncode == 0


def test_a_courier_that_ends_by_itself_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(courier, 'COMMAND', 'raise SystemExit(3)')
    with (
        Scripted(lambda asked, n: chat('x')) as server,
        pytest.raises(UserError, match='that asks it ended with 3; 0 a'),
    ):
        judged(server.url, tmp_path / 'journal.jsonl')
    assert not server.asked
