"""The stage `report` at work: a page is written once, or again and again while something changes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from safe_align.checkpoint import PARTIAL, write_text
from safe_align.config import UserError
from safe_align.evaluate.reporting.collect import Stage, directories_in, stages_in, state_of
from safe_align.evaluate.reporting.page import page_of

if TYPE_CHECKING:
    from safe_align.evaluate.report import ReportConfig


def run_report(config: ReportConfig) -> int:
    """The whole stage."""
    folder = Path(config.folder).expanduser()
    target = Path(config.output_file).expanduser() if config.output_file else folder / 'report.html'
    stages = stages_in(folder)
    if not config.watch:
        _write(target, folder, stages)
        return 0
    seen = None
    try:
        while True:
            if (state := _state(folder)) != seen:  # looked at before anything is read, so no change is missed
                with contextlib.suppress(FileNotFoundError):  # a stage is just being finished; look again
                    _write(target, folder, stages_in(folder), config.watch_interval)
                    seen = state
            time.sleep(config.watch_interval)
    except KeyboardInterrupt:
        _write(target, folder, stages_in(folder))  # this one does not load itself again
        return 0


def _write(target: Path, folder: Path, stages: list[Stage], renewed: float | None = None) -> None:
    """A page that is whole, or as it was.

    Raises:
        UserError: it cannot be written.
    """
    page = page_of(folder.resolve().name, stages, renewed)
    try:
        write_text(target, page)
    except OSError as error:
        raise UserError(f'--output_file {target}: cannot be written: {error.strerror}') from error
    print(f'report: {target}, {target.stat().st_size / 1e6:.2f} MB about {len(stages)} output directories', flush=True)


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """What would be other if a stage had changed: sizes and times of its files, and whether it is at work."""
    found = []
    for directory in directories_in(folder):
        found.append((state_of(directory), 0, 0))
        for path in sorted([*directory.glob('*.*'), *directory.glob('checkpoints/*')]):
            if path.suffix not in ('.html', PARTIAL):
                with contextlib.suppress(FileNotFoundError):  # it was there a moment ago
                    found.append((str(path), (stat := path.stat()).st_size, stat.st_mtime_ns))
    return found
