"""A process of its own that asks a judge, so that no answer is lost that a killed run has asked for.

Servers charge for answers that nobody waits for any more. What is under way when a run is killed is therefore not the
run's: a courier has it, which asks nothing new once the run is gone, waits for the answers that are due, writes them
into the run's journal, and ends. As long as it lives it holds the journal, and who opens that next can wait for it.

What kills the courier too, such as a loss of power, loses what is under way, which is then asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safe_align.config import UserError
from safe_align.remote.asking import Question, Row, ask
from safe_align.remote.endpoint import Endpoint
from safe_align.remote.fields import Server
from safe_align.remote.journal import Journal

COMMAND = 'from safe_align.remote.courier import carry; carry()'


def ask_apart(
    endpoint: Endpoint, journal: Journal, questions: Sequence[Question], each: Callable[[Row], object]
) -> None:
    """As `asking.ask`, by a courier.

    Raises:
        UserError: the server failed, or an answer cannot be written down; what had come by then is kept.
    """
    orders = {
        'parent': os.getpid(), 'server': endpoint.server._replace(model=endpoint.model)._asdict(),
        'journal': [str(journal.path), journal.fileno()], 'questions': questions,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, '-c', COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[journal.fileno()],
        start_new_session=True, env={**os.environ, 'PYTHONPATH': _path()},
    )  # fmt: skip
    error = None
    try:
        for told in _conversation(process, orders):
            if 'error' in told:
                error = told['error']
            else:
                endpoint.usage.count(told['prompt_tokens'], told['completion_tokens'])
                each(told)
    except BaseException:
        process.terminate()  # it waits for what is due
        raise
    if code := process.wait():
        error = f'--{endpoint.server.flag}_url {endpoint.server.url}: the process that asks it ended with {code}'
    if error:
        raise UserError(error)


def _conversation(process: Any, orders: dict[str, Any]) -> Iterator[Row]:
    """What the courier brings: rows, or what it died of."""
    with contextlib.suppress(BrokenPipeError), process.stdin:  # broken where it has ended: its exit code tells
        process.stdin.write(json.dumps(orders).encode())
    with process.stdout:
        yield from map(json.loads, process.stdout)


def _path() -> str:
    """Where it finds this package."""
    return os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get('PYTHONPATH'))))


def carry() -> None:
    """Be a courier: orders come by stdin, and rows go to stdout."""
    try:
        orders = json.load(sys.stdin.buffer)
    except ValueError:  # the run was killed as it gave them
        return
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    endpoint = Endpoint(Server(**orders['server']), is_checked=True)
    endpoint.pace.is_over = lambda: bool(stopped) or os.getppid() != orders['parent']
    questions = [Question(*one) for one in orders['questions']]
    with contextlib.suppress(asyncio.CancelledError):
        try:
            ask(endpoint, Journal.handed(*orders['journal']), questions, _tell)
        except UserError as error:
            _tell({'error': str(error)})


def _tell(row: Row) -> None:
    try:
        sys.stdout.buffer.write(json.dumps(row).encode() + b'\n')
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the run is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
