"""What a report costs and whether its page is in order: build time of the whole command, size, browser's complaints.

python benchmarks/report.py output/demo

Asked for: at most 3 s and 3 MB, no console error, no request, and no violation that axe-core finds in light, in dark
and at the width of a phone. Ends with 1 if one of these is missed. Needs chromium, and the extra `dev`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))

import chromium

ROOT = Path(__file__).parents[1]
VIEWS: tuple[tuple[int, Literal['light', 'dark']], ...] = ((1280, 'light'), (1280, 'dark'), (360, 'light'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / 'report.html'
        seconds = [build(args.folder.resolve(), page) for _ in range(args.repeats)]
        size = page.stat().st_size / 1e6
        complaints, violations = looked_at(page)
    rows = [
        ('seconds to build, median', statistics.median(seconds), 3), ('seconds to build, slowest', max(seconds), 3),
        ('MB', size, 3), ('console errors and requests', len(complaints), 0), ('axe violations', len(violations), 0),
    ]  # fmt: skip
    print('| | found | at most |\n|---|---|---|')
    for name, found, most in rows:
        print(f'| {name} | {found:.3g} | {most} |')
    for line in [*complaints, *violations]:
        print(line)
    sys.exit(any(found > most for _, found, most in rows))


def build(folder: Path, page: Path) -> float:
    started = time.perf_counter()
    command: list[str | Path] = [sys.executable, '-m', 'safe_align.evaluate.report', folder, '--output_file', page]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def looked_at(page: Path) -> tuple[list[str], list[str]]:
    """What the browser and axe-core complain of, with everything unfolded."""
    complaints: list[str] = []
    violations: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.found(), args=chromium.ARGUMENTS)
        for width, scheme in VIEWS:
            opened = browser.new_page(viewport={'width': width, 'height': 900}, color_scheme=scheme)
            opened.on('console', lambda message: complaints.append(message.text))
            opened.on('pageerror', lambda error: complaints.append(str(error)))
            opened.on('request', lambda one: complaints.append(one.url) if one.url != page.as_uri() else None)
            opened.goto(page.as_uri())
            opened.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            found = Axe().run(opened).response['violations']
            violations += [f'{width} {scheme}: {one["id"]}: {one["nodes"][0]["html"][:200]}' for one in found]
        browser.close()
    return complaints, violations


if __name__ == '__main__':
    main()
