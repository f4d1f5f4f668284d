"""Stages as real processes that start in a tenth of a second: a server that has imported torch forks one a request."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = 300  # seconds that a stage is waited for: then it says where it stands, and has failed
WARM = (
    'safe_align.algorithms.supervised', 'safe_align.algorithms.preference_loss', 'safe_align.algorithms.ppo_stage',
    'safe_align.values.scoring', 'safe_align.online.sampling_run', 'safe_align.online.annotation_run',
    'safe_align.zero', 'peft', 'transformers.models.llama.modeling_llama', 'transformers.models.gpt2.modeling_gpt2',
)  # fmt: skip


@dataclass
class Stage:
    """A stage at work: `pid` may be sent signals; `log` holds what it says."""

    forks: Forks
    pid: int
    log: Path

    def wait(self) -> int:
        """Its exit code; less than 0 if a signal ended it, SIGABRT one that would not end."""
        return self.forks.ask({'wait': self.pid})

    @property
    def said(self) -> str:
        return self.log.read_text(encoding='utf-8')


class Forks:
    """The server; `folder` is for what stages say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
        )  # fmt: skip
        self.server.stdout.readline()  # it is ready

    def ask(self, request: dict) -> int:
        self.server.stdin.write(json.dumps(request) + '\n')
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(
        self, module: str, *args, largest_file: int | None = None, dies_at: tuple[str, int] | None = None,
        copies: tuple[Path, Path] | None = None, stdin: str | Path = os.devnull, terminal: str | None = None,
        where: Path = ROOT, **environment,
    ) -> Stage:  # fmt: skip
        """`python -m module args`, which may write no file of more than `largest_file` bytes.

        With `dies_at=(text, n)` it is killed as it opens, makes, renames or removes, for the n-th time, a path with
        that text in it. With `copies=(folder, place)` the folder as it then was is copied to place/n as it so touches,
        for the n-th time, a path in it, unless nothing has changed since the last copy: what a kill would leave there.
        With a `terminal`, the device of one, that is where it reads and writes; `where` is the folder that it runs in.
        """
        self.count += 1
        log = Path(terminal or self.folder / f'{self.count}.log')
        request = {'argv': [module, *map(str, args)], 'log': str(log), 'environment': environment, 'dies_at': dies_at}
        request |= {'stdin': str(terminal or stdin), 'where': str(where)}
        folders = copies and [str(folder) for folder in copies]
        return Stage(self, self.ask({**request, 'largest_file': largest_file, 'copies': folders}), log)

    def run(self, module: str, *args, **options) -> tuple[int, str]:
        """Exit code and output of a stage that is let end."""
        stage = self.start(module, *args, **options)
        return stage.wait(), stage.said

    def launch(self, processes: int, module: str, *args, **options) -> list[Stage]:
        """The processes that `torchrun` would start."""
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        shared = {'WORLD_SIZE': str(processes), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
        ranks = [{'RANK': str(rank), 'LOCAL_RANK': str(rank)} for rank in range(processes)]
        return [self.start(module, *args, **shared, **rank, **options) for rank in ranks]

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()


def wait_for(happens, stage: Stage, seconds: float = 60) -> None:
    """Look every few milliseconds whether `happens()`, while the stage runs."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, f'waited for {seconds} s; the stage said:\n{stage.said}'
        time.sleep(0.003)


def kill(stages: list[Stage], signum: int = signal.SIGKILL) -> list[int]:
    """Send a signal to each, wait for all; their exit codes."""
    for stage in stages:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stage.pid, signum)
    return [stage.wait() for stage in stages]


def _warm() -> None:
    """Do once what each stage would do again: most of the time of one that trains a tiny model."""
    import gc
    import importlib

    for module in WARM:
        with contextlib.suppress(ImportError):  # of an extra
            importlib.import_module(module)
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from safe_align.datasets import RawDataset

    RawDataset.names()
    get_checkpoint_conversion_mapping('llama')  # which compiles a thousand regular expressions, those of all models
    gc.collect()
    gc.freeze()


def _serve() -> None:
    _warm()
    print('ready', flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if 'wait' in request:
            answer = _end_of(request['wait'])
        else:
            answer = os.fork() or _become(**request)
        print(answer, flush=True)


def _end_of(pid: int) -> int:
    """Its exit code."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGABRT))
    signal.alarm(LONGEST)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        signal.alarm(0)


def at_touches(text: str, act: Callable[[int], None]) -> None:
    """Call `act(n)` at the n-th event of Python's audit that names a path with `text` in it."""
    count, acting = 0, False

    def hook(event: str, args: tuple) -> None:
        nonlocal count, acting
        if acting or not (event == 'open' or (event.startswith(('os.', 'shutil.')) and event != 'os.kill')):
            return
        if any(isinstance(one, str | os.PathLike) and text in os.fspath(one) for one in args):
            count += 1
            acting = True
            act(count)
            acting = False

    sys.addaudithook(hook)


def die_at(text: str, count: int) -> None:
    """Kill this process at the n-th touch."""
    at_touches(text, lambda number: number == count and os.kill(os.getpid(), signal.SIGKILL))


def copy_at_all(folder: str, place: str) -> None:
    """Copy the folder at each touch, unless it is as it was."""
    last: dict[Path, bytes] = {}

    def act(number: int) -> None:
        nonlocal last
        now = {path: path.read_bytes() if path.is_file() else b'' for path in Path(folder).rglob('*')}
        if now != last:
            shutil.copytree(folder, Path(place) / str(number))
        last = now

    at_touches(folder, act)


def _through_a_pipe(output: int) -> int:
    """A pipe to the file; this process goes on as a child, and ends as it ended once all that it said is there."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        return writing
    os.close(writing)
    while said := os.read(reading, 1 << 16):
        os.write(output, said)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _become(
    argv: list[str], log: str, stdin: str, where: str, environment: dict[str, str], largest_file: int | None,
    dies_at: list | None, copies: list[str] | None,
) -> int:  # fmt: skip
    """Be the stage, and end."""
    import faulthandler
    import resource
    import runpy

    os.chdir(where)
    if stdin == log:
        os.setsid()  # the terminal that it opens next is its own, whose Ctrl-C it gets
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, encoding='utf-8', closefd=False)  # without what the server has read ahead
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if largest_file is not None:  # it may say more than that
        output = _through_a_pipe(output)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    os.environ.update(environment)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if dies_at is not None:
        die_at(*dies_at)
    if copies is not None:
        copy_at_all(*copies)
    sys.argv = list(argv)
    code = 1
    try:
        runpy.run_module(argv[0], run_name='__main__', alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    _serve()
