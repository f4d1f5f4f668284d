"""The stage `report` at work: a page is written once, or again and again while something changes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from safe_align.checkpoint import write_text
from safe_align.config import UserError
from safe_align.evaluate.reporting.collect import Stage, stages_in
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
            stages = stages_in(folder)
            if (state := _state(stages)) != seen:
                _write(target, folder, stages, config.watch_interval)
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
    print(f'report: {target}, {len(page.encode()) / 1e6:.2f} MB, {len(stages)} stages', flush=True)


def _state(stages: list[Stage]) -> list[tuple[str, str, int, int]]:
    """What would be seen if something of a stage had changed."""
    return [
        (str(path), stage.state, stat.st_size, stat.st_mtime_ns)
        for stage in stages
        for path in sorted([*stage.directory.glob('*.*'), *stage.directory.glob('checkpoints/*')])
        if path.suffix not in ('.html', '.partial') and (stat := path.stat())
    ]
