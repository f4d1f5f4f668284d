"""What a stage wrote down of the model in a directory; read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safe_align.config import UserError

RECORD = 'safe_align.json'


def record_of(name_or_path: str) -> dict[str, Any] | None:
    """The `safe_align.json` of a directory that a stage wrote.

    Raises:
        UserError: it is not JSON.
    """
    path = Path(name_or_path).expanduser() / RECORD
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{path}: cannot be read: {error}') from error
