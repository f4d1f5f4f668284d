"""A stage's output directory: what it holds when it is finished, and what the next stage reads of it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import safe_align
from safe_align import distributed
from safe_align.checkpoint import MANIFEST, disk_errors, flush, hash_files, seal, write_json
from safe_align.config import UserError, to_dict
from safe_align.datasets.grammar import parse_dataset
from safe_align.logger import METRICS, Logger
from safe_align.models.record import RECORD, base_of
from safe_align.ownership import ARGUMENTS, CARD, FINISHING, PROMPTS, claim, lock, parent_of, remove, sizes_of

if TYPE_CHECKING:
    from safe_align.datasets.mixture import Mixture


@dataclass
class Run:
    """A stage at work in its output directory."""

    stage: str
    directory: Path
    arguments: dict[str, Any]
    parents: dict[str, dict[str, Any]]
    logger: Logger
    record: dict[str, Any] = field(default_factory=dict)  # what the stage adds to safe_align.json
    started: float = field(default_factory=time.time)
    locks: Sequence[Any] = ()  # files that keep others out of the directory until they are closed

    def finish(self, kind: str, write: Callable[[Path], None], prompts: Iterable[int] = ()) -> None:
        """Put what `write` leaves in a new directory here, and the record, and last the manifest: then it is whole."""
        part = self.directory / FINISHING
        failures: list[OSError] = []
        try:
            distributed.on_main(lambda: _empty(part))
            try:
                with disk_errors():
                    write(part)  # on every process, since gathering shards takes all of them; only the first writes
            except OSError as error:
                failures.append(error)
            distributed.on_main(lambda: self._publish(part, kind, prompts, failures))
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise UserError(
                f'--output_dir {self.directory}: the result could not be written: {error.strerror}; '
                'the same command goes on from the newest checkpoint'
            ) from error
        self.logger.close()
        for handle in self.locks:
            handle.close()
        if distributed.is_main():
            self.logger.say(f'done in {time.time() - self.started:.0f} s; peak memory {_peak_memory():.1f} GiB')

    def _publish(self, part: Path, kind: str, prompts: Iterable[int], failures: list[OSError]) -> None:
        if failures:
            raise failures[0]
        record, hashes = self._record(kind), ''.join(f'{h:016x}\n' for h in sorted({int(h) for h in prompts}))
        folders = [path for path in part.iterdir() if path.is_dir()]
        for folder in (part, *folders):
            (folder / PROMPTS).write_text(hashes, encoding='utf-8')
            write_json(folder / RECORD, record)
            if not (folder / CARD).exists():
                (folder / CARD).write_text(_card(record), encoding='utf-8')
        for folder in folders:
            seal(folder)
            remove(self.directory / folder.name)
            folder.replace(self.directory / folder.name)
        names = [file.name for file in part.iterdir()]
        for name in names:
            flush(part / name)
            (part / name).replace(self.directory / name)
        part.rmdir()
        flush(self.directory)
        names.remove(CARD)  # which is the user's to edit
        kept = [*names, ARGUMENTS, *([METRICS] if (self.directory / METRICS).exists() else [])]
        write_json(self.directory / MANIFEST, hash_files(self.directory, kept))

    def _record(self, kind: str) -> dict[str, Any]:
        metrics = self.directory / METRICS
        lines = metrics.read_text(encoding='utf-8').splitlines() if metrics.exists() else []
        final: dict[str, Any] = {}
        for line in lines:
            final |= json.loads(line)
        return {
            'kind': kind, 'stage': self.stage, 'arguments': self.arguments, 'parents': self.parents,
            'final_metrics': final, **self.record,
            'versions': versions(),
            'device': _device_name(),
            'processes': distributed.world_size(),
            'finished': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'seconds_since_last_start': round(time.time() - self.started, 1),
            'peak_memory_gib': round(_peak_memory(), 2),
        }  # fmt: skip


def start_run(config: Any, stage: str, parents: dict[str, str], *data: Mixture | None) -> Run | None:
    """Take the output directory; None if it holds this very run, finished.

    Args:
        config: the stage's options.
        stage: its name.
        parents: model paths by the option that named them.
        data: what it reads; a run goes on with the same rows, or not at all.

    Raises:
        UserError: the directory holds another run, or is in use, or cannot be written.
    """
    directory = Path(config.output_dir).expanduser()
    arguments = json.loads(json.dumps(to_dict(config)))
    for name, path in [*((f'--{option}', path) for option, path in parents.items()), *_data_in(arguments)]:
        _keep(path, directory, name, bool(arguments.get('overwrite')))
    parents_found: dict[str, dict[str, Any]] = {}
    locks: list[Any] = []

    def take() -> bool:
        locks.append(lock(directory))
        parents_found.update({option: parent_of(option, path) for option, path in parents.items()})
        origin = {
            'stage': stage, 'parents': parents_found, 'sizes': sizes_of(arguments, distributed.world_size()),
            'data': [[part['name'], part['fingerprint']] for one in data if one for part in one.report],
        }  # fmt: skip
        return claim(directory, arguments, origin, config.overwrite)

    try:
        if not distributed.on_main(take):
            return None
    except OSError as error:
        raise UserError(f'--output_dir {directory}: cannot be written: {error.strerror}') from error
    logger = Logger(
        directory, stage, config.log_type, config.log_dir, config.log_project, config.log_run_name, arguments
    )
    return Run(stage, directory, arguments, parents_found, logger, locks=locks)


def _data_in(arguments: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The files and folders of data that options name, by what they were given as."""
    for option, specs in arguments.items():
        for spec in (specs or ()) if option.endswith('datasets') else ():
            if path := parse_dataset(spec)[1].get('path'):
                yield f'--{option} {spec}', path


def _keep(parent: str, directory: Path, name: str, overwrite: bool) -> None:
    """Refuse a directory that is a parent or the base of it, or that holds it and makes way."""
    place = Path(parent).expanduser().resolve()
    lost = (place, *place.parents) if overwrite else (place,)
    if place.exists() and directory.resolve() in lost:
        how = 'is' if place == directory.resolve() else 'holds'
        raise UserError(f'--output_dir {directory}: {how} {name} too, which would be lost')
    if base := base_of(parent):
        _keep(base, directory, f'the base of {name}', overwrite)


def models_of(config: Any) -> dict[str, str]:
    """The models that a run starts from, by option; of a list's, the second is called option_2."""
    found = {}
    for option, given in to_dict(config).items():
        if option.endswith('model_name_or_path') and given:
            for n, path in enumerate([given] if isinstance(given, str) else given):
                found[option if n == 0 else f'{option}_{n + 1}'] = path
    return found


def versions() -> dict[str, str]:
    """Of what computes."""
    return {
        'safe_align': safe_align.__version__, 'python': platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ('torch', 'transformers')},  # which may not be imported
    }  # fmt: skip


def _device_name() -> str:
    """Of what computed; a stage that never imported torch used no GPU."""
    if 'torch' not in sys.modules or distributed.local_device().type != 'cuda':
        return 'cpu'
    import torch

    return torch.cuda.get_device_name(distributed.local_device())


def _peak_memory() -> float:
    """The most that this process has held since it started, in GiB: of the GPU, or resident in main memory."""
    if _device_name() != 'cpu':
        import torch

        device = distributed.local_device()
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _empty(path: Path) -> None:
    remove(path)
    path.mkdir()


def prompts_of(directory: Path) -> np.ndarray:
    """The hashes of `prompts.hashes`: (n,) uint64."""
    lines = (directory / PROMPTS).read_text(encoding='utf-8').split()
    return np.array([int(line, 16) for line in lines], np.uint64)


def _card(record: dict[str, Any]) -> str:
    parents = ''.join(f'- `--{option}` {parent["path"]}\n' for option, parent in record['parents'].items())
    data = ''.join(f'- {d["name"]}: {d["used"]} of {d["rows"]} rows\n' for d in record.get('datasets', []))
    numbers = ''.join(f'| {name} | {value} |\n' for name, value in record['final_metrics'].items())
    tag = {'policy': 'text-generation', 'reward': 'text-classification', 'cost': 'text-classification'}
    kind, is_model = record['kind'], record['kind'] in tag
    return (
        f'---\n{f"pipeline_tag: {tag[kind]}{chr(10)}" if is_model else ""}'
        f'tags:\n- safe_align\n- {record["stage"]}\n---\n\n'
        f'# {kind.capitalize()}{" model" * is_model}, by {record["stage"]}\n\nMade from\n\n{parents}\n'
        f'with the data sets\n\n{data}\n| metric | at the end |\n|---|---|\n{numbers}\n'
        f'`{RECORD}` holds all of its options, versions and hashes.\n'
    )
