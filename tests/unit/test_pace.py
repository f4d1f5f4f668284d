"""A server is asked no oftener than allowed, and not before it wants to be; no test waits for a clock."""

from __future__ import annotations

import asyncio
import email.utils
import time

import pytest
from servers import Scripted, chat, error

from safe_align.remote.endpoint import Endpoint
from safe_align.remote.fields import JudgeFields, Server
from safe_align.remote.pace import LONGEST, Pace, retry_after


class Clock:
    """It stands still but for those who sleep by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, end)


def times(pace: Pace, clock: Clock, count: int, together: int = 4) -> list[float]:
    """When so many turns come, by `together` that ask for them at once."""
    found = []

    async def work() -> None:
        while len(found) < count:
            await pace.turn()
            found.append(clock.now)

    async def all_of_them() -> None:
        await asyncio.gather(*(work() for _ in range(together)))

    asyncio.run(all_of_them())
    return found[:count]


@pytest.mark.parametrize('together', [1, 4])
def test_turns_come_at_equal_distances_however_many_wait(together):
    clock = Clock()
    assert times(Pace(10, clock, clock.sleep), clock, 6, together) == pytest.approx([0, 6, 12, 18, 24, 30])


def test_without_a_limit_nobody_waits():
    clock = Clock()
    assert times(Pace(None, clock, clock.sleep), clock, 9) == [0] * 9


def test_a_pause_is_for_all_and_turns_after_it_keep_their_distance():
    clock = Clock()
    pace = Pace(60, clock, clock.sleep)
    assert times(pace, clock, 2, 1) == [0, 1]
    pace.hold(7)
    pace.hold(-1)
    pace.hold(3)  # which ends before
    assert times(pace, clock, 3) == [8, 9, 10]
    endless = Pace(None, clock, clock.sleep)
    endless.hold(1e9)
    start = clock.now
    assert times(endless, clock, 1, 1) == [start + LONGEST]


@pytest.mark.parametrize(
    ('headers', 'seconds'),
    [
        ({}, 0), ({'retry-after': '2.5'}, 2.5), ({'retry-after': 'soon'}, 0), ({'retry-after': 'nan'}, 0),
        ({'retry-after-ms': '250', 'retry-after': '1'}, 0.25), ({'retry-after': 'inf'}, 0),
    ],
)  # fmt: skip
def test_what_a_server_says_of_when_to_come_again(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_date_says_it_too():
    told = {'retry-after': email.utils.formatdate(time.time() + 50, usegmt=True)}
    assert 40 < retry_after(told) <= 50


def test_requests_and_those_made_again_keep_the_distance(monkeypatch):
    clock = Clock()
    monkeypatch.setattr('safe_align.remote.endpoint.Pace', lambda per_minute: Pace(per_minute, clock, clock.sleep))
    came = []
    with Scripted(lambda asked, n: error(429, 'slow', Retry_After='0.01') if n == 2 else chat('x')) as server:
        fields = JudgeFields(judge_url=server.url, judge_requests_per_minute=30, judge_concurrency=3, judge_retries=1)
        requests = [lambda refused: {'messages': [{'role': 'user', 'content': 'a'}]}] * 6
        Endpoint(fields.judge_server()).ask(requests, lambda number, answer: came.append(number))
        assert len(server.asked) == 7
    assert sorted(came) == [*range(6)]
    assert clock.now == pytest.approx(6 * 2)  # seven at a distance of two seconds, the pause being shorter


def test_a_pause_that_one_answer_asks_for_holds_all(monkeypatch):
    clock = Clock()
    monkeypatch.setattr('safe_align.remote.endpoint.Pace', lambda per_minute: Pace(per_minute, clock, clock.sleep))
    bad = error(503, 'busy', retry_after_ms='1', Retry_After='30')
    with Scripted(lambda asked, n: bad if n == 0 else chat('x')) as server:
        requests = [lambda refused: {'messages': [{'role': 'user', 'content': 'a'}]}] * 3
        Endpoint(Server(server.url, concurrency=1)).ask(requests, lambda number, answer: None)
    assert clock.now == pytest.approx(0.001)
