"""The losses by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from safe_align import plugins

FOLDER = 'safe_align.losses'


class _Losses(Mapping[str, type]):
    """The classes of this folder and of the user's files, by name; a file is read when its class is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(plugins.names(FOLDER))

    def __len__(self) -> int:
        return len(plugins.names(FOLDER))

    def __getitem__(self, name: str) -> type[Any]:
        if (own := plugins.named(FOLDER, name)) is not None:
            return own
        if name not in self:
            raise KeyError(name)
        module = importlib.import_module(f'{FOLDER}.{name}')
        (found,) = (one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__)
        return found

    def __contains__(self, name: object) -> bool:
        return name in plugins.names(FOLDER)


LOSSES: Mapping[str, type[Any]] = _Losses()
