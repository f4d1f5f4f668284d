"""Stage: one page of HTML that shows what a folder of output directories holds."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.config import arg, run


@dataclass(kw_only=True, frozen=True)
class ReportConfig:
    """Write one HTML file about all stages in a folder: how one came from another, their curves and their results."""

    folder: str = arg(help='where the output directories are, at any depth', positional=True)
    output_file: str | None = arg(None, 'the page (default: report.html in the folder)')
    watch: bool = arg(False, 'write it again whenever something has changed, until Ctrl-C')
    watch_interval: float = arg(5.0, 'seconds between two looks with --watch', low=0.05)


def main(config: ReportConfig) -> int:
    """Collect, draw, and write the page."""
    from safe_align.evaluate.reporting.writing import run_report

    return run_report(config)


if __name__ == '__main__':
    run(ReportConfig, main)
