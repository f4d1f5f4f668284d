"""Metrics: a progress bar, a line a step in metrics.jsonl, and wandb or tensorboard.

`metrics.jsonl` holds what the training computed and nothing that depends on the clock, so a run that was killed and
resumed leaves the same file. Speeds go to the bar and the tracker. A tracker that breaks is dropped with one warning.
"""

from __future__ import annotations

import contextlib
import json
import math
import netrc
import os
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from safe_align import distributed
from safe_align.checkpoint import write_text
from safe_align.config import UserError

METRICS = 'metrics.jsonl'
SHOWN = 5  # metrics beside the bar


class Logger:
    """Where a run's numbers go; on the other processes it does nothing.

    Args:
        output_dir: the run's directory.
        stage: its name, for the bar and the trackers.
        log_type: 'wandb', 'tensorboard' or 'none'.
        log_dir: the tracker's directory; `output_dir` if None.
        project: wandb's project.
        run_name: wandb's name of the run.
        config: the options, for the tracker.
    """

    def __init__(
        self,
        output_dir: Path,
        stage: str,
        log_type: str = 'none',
        log_dir: str | None = None,
        project: str | None = None,
        run_name: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.stage = output_dir / METRICS, stage
        self.is_main = distributed.is_main()
        self.tracker = None
        self.bar: tqdm | None = None
        self.tokens, self.started = 0.0, time.perf_counter()
        if self.is_main and log_type != 'none':
            open_tracker = {'wandb': _Wandb, 'tensorboard': _Tensorboard}[log_type]
            place = Path(log_dir).expanduser() if log_dir else output_dir
            self.tracker = self._guard(open_tracker, place, project, run_name or stage, config)

    def start(self, step: int, total: int) -> None:
        """Show a bar from `step` of `total`, and forget lines of later steps, which will be written again.

        Lines that are none, as a kill or an editor leaves them, are forgotten too.
        """
        if not self.is_main:
            return
        lines = self.path.read_text(encoding='utf-8', errors='replace').split('\n') if self.path.exists() else []
        kept = [line for line in lines if step and _is_up_to(step, line)]
        with _writing(self.path):
            write_text(self.path, ''.join(f'{line}\n' for line in kept))
        self.tokens, self.started = 0.0, time.perf_counter()
        self.bar = tqdm(
            total=total, initial=step, desc=self.stage, dynamic_ncols=True, file=sys.stderr, mininterval=1.0
        )

    def log(self, step: int, metrics: dict[str, float], tokens: float = 0.0) -> None:
        """Write a step's numbers; those that are not finite as null. `tokens` is what it took in on all processes."""
        if not self.is_main:
            return
        clean = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        with _writing(self.path), self.path.open('a', encoding='utf-8') as file:
            file.write(json.dumps({'step': step, **clean}) + '\n')
        self.tokens += tokens
        speed = self.tokens / max(time.perf_counter() - self.started, 1e-9)
        if self.tracker is not None:
            self._guard(self.tracker.log, {**metrics, 'train/tokens_per_second': speed}, step)
        if self.bar is not None and tokens:
            shown = {name.split('/', 1)[-1]: f'{value:.4g}' for name, value in list(metrics.items())[:SHOWN]}
            self.bar.set_postfix({**shown, 'tok/s': f'{speed:.0f}'}, refresh=False)
            self.bar.update(1)

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str = ' tok') -> Iterator[Callable[[int], object]]:
        """A bar over `total` tokens, or other units, at most, of something that is no training."""
        with tqdm(
            total=total, desc=f'{self.stage}: {what}', unit=unit, disable=not self.is_main, dynamic_ncols=True,
            file=sys.stderr, mininterval=1.0,
        ) as bar:  # fmt: skip
            yield bar.update

    def say(self, text: str) -> None:
        """A line for the user."""
        if self.is_main:
            tqdm.write(f'{self.stage}: {text}', file=sys.stderr)

    def close(self) -> None:
        """End the bar and the tracker."""
        if self.bar is not None:
            self.bar.close()
        if self.tracker is not None:
            self._guard(self.tracker.close)

    def _guard(self, call: Any, *args: Any) -> Any:
        """Whatever a tracker does, the run goes on."""
        try:
            return call(*args)
        except Exception as error:
            self.tracker = None
            self.say(f'the tracker failed and is left out from here: {type(error).__name__}: {error}')
            return None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror}') from error


class _Wandb:
    def __init__(self, directory: Path, project: str | None, name: str, config: dict[str, Any] | None) -> None:
        os.environ.setdefault('WANDB_SILENT', 'true')
        if not _has_key():
            os.environ.setdefault('WANDB_MODE', 'offline')  # with a mode set, wandb asks for nothing
        import wandb

        self.run = wandb.init(
            project=project or 'safe_align', name=name, dir=directory, config=config,
            settings=wandb.Settings(console='off', disable_git=True, save_code=False, x_disable_meta=True),
        )  # fmt: skip

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics, step=step)

    def close(self) -> None:
        self.run.finish()


def _has_key() -> bool:
    """Whether wandb could log in by itself: by the environment, or as `wandb login` left it."""
    if os.environ.get('WANDB_API_KEY'):
        return True
    host = urllib.parse.urlsplit(os.environ.get('WANDB_BASE_URL') or 'https://api.wandb.ai').hostname
    try:
        return netrc.netrc(os.environ.get('NETRC')).authenticators(host or '') is not None
    except (OSError, netrc.NetrcParseError):
        return False


class _Tensorboard:
    def __init__(self, directory: Path, project: str | None, name: str, config: dict[str, Any] | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / 'tensorboard'))

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


def _is_up_to(step: int, line: str) -> bool:
    try:
        return bool(json.loads(line)['step'] <= step)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
