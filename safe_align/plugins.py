"""A folder is a registry: what a user picks by name is a file in it, or a file of the user's own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

CONTRACTS = {  # what the modules of a folder have; by the first, a user's own file is known to belong there
    'safe_align.bounds': ('upper_bound', 'ASSUMES', 'TARGET', 'FINITE_SAMPLE', 'NEEDS_RANGE', 'MIN_COSTS'),
    'safe_align.online.samplers': ('laws',),
    'safe_align.online.annotators': ('annotator',),
    'safe_align.online.reweighters': ('weights',),
    'safe_align.evaluate.judges': ('judge',),
}
TABLES = {
    'LOSSES': 'safe_align.losses'
}  # dicts in a user's file, from names to its classes, and the folder they add to
_own: dict[tuple[str, str], ModuleType] = {}  # the user's, by folder and name
_named: dict[tuple[str, str], type] = {}  # classes of the user's, by folder and name


def names(folder: str) -> list[str]:
    """The names that `folder`, a package such as 'safe_align.bounds', offers: its public modules, and the user's."""
    return sorted({*_house(folder), *(name for place, name in (*_own, *_named) if place == folder)})


def named(folder: str, name: str) -> type | None:
    """The class that a user's file calls `name` and adds to `folder`."""
    return _named.get((folder, name))


def load(folder: str, name: str) -> ModuleType:
    """The module `name` of `folder`."""
    return _own.get((folder, name)) or importlib.import_module(f'{folder}.{name}')


def from_modules(package: str, places: dict[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """A package's `__getattr__` that reads a public name's module when the name is asked for."""
    where = {name: module for module, names_ in places.items() for name in names_}

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(importlib.import_module(f'{package}.{where[name]}'), name)

    return get


def own_file(folder: str, name: str) -> dict[str, str] | None:
    """Name and hash of the user's own file that `name` of `folder` is; None if it is the house's."""
    if (folder, name) not in _own:
        return None
    path = Path(str(_own[folder, name].__file__))
    return {'name': path.name, 'sha256': hashlib.sha256(path.read_bytes()).hexdigest()}


def import_plugin(file_or_module: str) -> ModuleType:
    """Import a user's file (a path that ends in .py) or module; what it registers is then known by its name.

    A file that has what the modules of a folder have is one of them, and its own name is its name there.

    Raises:
        ImportError: there is no such file or module, importing it failed, or it cannot be what it sets out to be.
    """
    path = Path(file_or_module).expanduser()
    if path.suffix != '.py':
        try:
            module = importlib.import_module(file_or_module)
        except (Exception, SystemExit) as error:
            raise ImportError(f'{type(error).__name__}: {error}') from error
        _adopt(module, file_or_module.rpartition('.')[2])
        return module
    if not path.is_file():
        raise ImportError(f'no such file: {path}')
    name = f'safe_align_plugin_{path.stem}_{hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()}'
    if name in sys.modules:
        _adopt(sys.modules[name], path.stem)
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script would end the run, and well
        del sys.modules[name]
        raise ImportError(f'{type(error).__name__}: {error}') from error
    _adopt(module, path.stem)
    return module


def _house(folder: str) -> list[str]:
    package = importlib.import_module(folder)
    return [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith('_')]


def _adopt(module: ModuleType, name: str) -> None:
    """Make a user's module one of each folder whose mark it bears.

    Raises:
        ImportError: it lacks what such a module has, or its name is taken.
    """
    for folder, (mark, *rest) in CONTRACTS.items():
        if not callable(getattr(module, mark, None)):
            continue
        missing = [one for one in rest if not hasattr(module, one)]
        if missing:
            raise ImportError(f'has {mark} and no {missing[0]}; help({folder}) says what such a file has')
        if name in _house(folder) or _own.get((folder, name), module) is not module:
            raise ImportError(f'{folder} has a {name} already; give the file another name')
        _own[folder, name] = module
    for table, folder in TABLES.items():
        listed = getattr(module, table, None)
        for key, value in (listed if isinstance(listed, dict) else {}).items():
            found = getattr(module, value, None) if isinstance(value, str) else value
            if not isinstance(found, type):
                raise ImportError(f'{table}: {key}: {value!r} is no class of this file')
            if key in _house(folder) or _named.get((folder, key), found) is not found:
                raise ImportError(f'{folder} has a {key} already; give it another name')
            _named[folder, key] = found
