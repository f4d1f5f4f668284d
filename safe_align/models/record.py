"""What is written down of the model in a directory, by a stage or by `peft`; read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safe_align.config import UserError

RECORD, ADAPTER = 'safe_align.json', 'adapter_config.json'


def record_of(name_or_path: str) -> dict[str, Any] | None:
    """The `safe_align.json` of a directory that a stage wrote.

    Raises:
        UserError: it is not JSON.
    """
    return _read(Path(name_or_path).expanduser() / RECORD)


def adapter_of(name_or_path: str) -> dict[str, Any] | None:
    """The `adapter_config.json` of a directory that holds an adapter.

    Raises:
        UserError: it is not JSON.
    """
    return _read(Path(name_or_path).expanduser() / ADAPTER)


def base_of(name_or_path: str) -> str | None:
    """The model that an adapter is put on; None if this is no adapter.

    Raises:
        UserError: it does not say.
    """
    adapter = adapter_of(name_or_path)
    if adapter is None:
        return None
    base = adapter.get('base_model_name_or_path')
    if not base or not isinstance(base, str):
        raise UserError(f'{name_or_path}: {ADAPTER} names no base model')
    is_path = base.startswith(('/', '.', '~'))  # else it may be a name on the hub, whatever lies beside the adapter
    return found_near(base, Path(name_or_path).expanduser()) if is_path else base


def found_near(path: str, child: Path) -> str:
    """Where a parent is: as its child named it, or beside the child, where directories have moved together."""
    beside = child.parent / Path(path).name
    return str(beside) if not Path(path).expanduser().exists() and beside.is_dir() else path


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{path}: cannot be read: {error}') from error
