"""The browser that looks at reports."""

from __future__ import annotations

import shutil

ARGUMENTS = [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
]  # fmt: skip


def found() -> str | None:
    """Where it is, if it is here."""
    return shutil.which('chromium') or shutil.which('/usr/bin/chromium')
