"""Directories that are whole or not there, and the state from which a killed run goes on.

A directory is written beside its place with a manifest of sizes and hashes, flushed to disk, and renamed. Reading
verifies the manifest; what does not agree with it is passed over. Tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import SafetensorError

from safe_align import distributed

if TYPE_CHECKING:
    import torch

MANIFEST = 'manifest.json'
PARTIAL = '.partial'  # ends the name of what is being written; it starts with a dot
KEEP = 2  # checkpoints of a run


class Damaged(Exception):  # noqa: N818
    """A directory whose files are not those of its manifest; the message says which."""


def file_hash(path: Path) -> str:
    """BLAKE2b of a file's bytes."""
    digest = hashlib.blake2b(digest_size=32)
    with path.open('rb') as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def hash_files(directory: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and hash of each named file."""
    names = sorted(names)
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(lambda name: file_hash(directory / name), names))
    return {
        name: {'size': (directory / name).stat().st_size, 'blake2b': h} for name, h in zip(names, hashes, strict=True)
    }


def write_text(path: Path, text: str) -> None:
    """A file that is whole or as it was; half of a surrogate pair, which JSON may hold, becomes a question mark."""
    part = path.with_name(f'.{path.name}{PARTIAL}')
    part.write_text(text, encoding='utf-8', errors='replace')
    flush(part)
    part.replace(path)


def write_json(path: Path, value: Any) -> None:
    """A JSON file that is whole or as it was."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=str) + '\n')


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A line a row."""
    with path.open('w', encoding='utf-8') as file:
        file.writelines(json.dumps(row) + '\n' for row in rows)


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """`safetensors` tells of a full disk in words of its own; out of here it is an OSError like any other."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r'os error (\d+)', str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def write_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write files into a new directory, and put it at `path` when all of it is on disk.

    Raises:
        OSError: the disk is full, or not to be written to; nothing is left behind and what was there is as it was.
    """
    part = path.with_name(f'.{path.name}{PARTIAL}')
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        with disk_errors():
            fill(part)
        seal(part)
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
        flush(path.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def seal(directory: Path) -> None:
    """Write the manifest of all files in `directory`, and flush them."""
    names = [str(file.relative_to(directory)) for file in directory.rglob('*') if file.is_file()]
    for name in names:
        flush(directory / name)
    write_json(directory / MANIFEST, hash_files(directory, names))
    flush(directory)


def verify(directory: Path, only: Collection[str] | None = None) -> dict[str, Any]:
    """The manifest of a directory whose files are what it says.

    Args:
        directory: where it is.
        only: the files that are looked at; all, if None.

    Raises:
        Damaged: there is no manifest, or a file is missing, or not what was written.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding='utf-8'))
        expected = {name: (entry['size'], entry['blake2b']) for name, entry in manifest.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f'{directory}: no readable {MANIFEST}') from error
    if only is not None:
        if unknown := sorted(set(only) - expected.keys()):
            raise Damaged(f'{directory}: {unknown[0]} is not in {MANIFEST}')
        expected = {name: expected[name] for name in only}
    for name, (size, _) in expected.items():
        path = directory / name
        if not path.is_file():
            raise Damaged(f'{directory}: {name} is missing')
        if path.stat().st_size != size:
            raise Damaged(f'{directory}: {name} has {path.stat().st_size} bytes, not {size}')
    for name, entry in hash_files(directory, expected).items():
        if entry['blake2b'] != expected[name][1]:
            raise Damaged(f'{directory}: {name} is not what was written')
    return manifest


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or which names a directory has."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Resumable(Protocol):
    """What a checkpoint holds: engines by role, and the numbers of everything else."""

    engines: dict[str, Any]

    def state(self) -> dict[str, Any]:
        """JSON values."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


def save_state(directory: Path, round_number: int, step: int, algorithm: Resumable) -> None:
    """Write `checkpoints/step-N`, and let go of all but the newest two.

    Raises:
        OSError: it cannot be written; the checkpoints before are as they were.
    """
    from safetensors.torch import save_file

    states = {role: engine.state() for role, engine in algorithm.engines.items()}
    draws = distributed.gather_over_ranks([_random_state()])
    numbers = {
        'round': round_number, 'step': step, 'algorithm': algorithm.state(),
        'engines': {role: counts for role, (_, counts) in states.items()},
    }  # fmt: skip

    def fill(part: Path) -> None:
        for role, (tensors, _) in states.items():
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part / f'{role}.safetensors')
        random = {f'{name}.{rank}': state for rank, draw in enumerate(draws) for name, state in draw.items()}
        save_file(random, part / 'random.safetensors')
        write_json(part / 'state.json', numbers)

    def write() -> None:
        folder = directory / 'checkpoints'
        write_directory(folder / f'step-{step}', fill)
        found = _newest_first(folder)
        kept = [path for path in found if _step_of(path) <= step][:KEEP]  # later ones were damaged, so it began earlier
        for old in {*found, *folder.glob(f'.*{PARTIAL}')} - {*kept}:
            shutil.rmtree(old, ignore_errors=True)

    distributed.on_main(write)


def load_newest(directory: Path, algorithm: Resumable, say: Callable[[str], None]) -> tuple[int, int]:
    """Go on from the newest checkpoint that is whole; (round, step) of it, or (0, 0)."""
    from safetensors.torch import load_file

    for path in _newest_first(directory / 'checkpoints'):
        try:
            verify(path)
        except Damaged as damage:
            say(f'a damaged checkpoint is passed over: {damage}')
            continue
        numbers = json.loads((path / 'state.json').read_text(encoding='utf-8'))
        for role, engine in algorithm.engines.items():
            engine.load_state(load_file(path / f'{role}.safetensors'), numbers['engines'][role])
        algorithm.load_state(numbers['algorithm'])
        _set_random_state(load_file(path / 'random.safetensors'))
        say(f'goes on from step {numbers["step"]} ({path})')
        return numbers['round'], numbers['step']
    return 0, 0


def _random_state() -> dict[str, torch.Tensor]:
    """Of this process's generators."""
    import torch

    return {'cpu': torch.get_rng_state(), **({'cuda': torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})}


def _set_random_state(states: dict[str, torch.Tensor]) -> None:
    """As they were; a process that was not there, or another device, starts from the seed."""
    import torch

    for name, setter in (('cpu', torch.set_rng_state), ('cuda', torch.cuda.set_rng_state)):
        state = states.get(f'{name}.{distributed.rank()}')
        if state is not None and (name == 'cpu' or torch.cuda.is_available()):
            setter(state)


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob('step-*') if path.name.removeprefix('step-').isdecimal()]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix('step-'))
