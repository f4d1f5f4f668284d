"""What lies in a folder of output directories: stages, whether they are whole, and which was made from which."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safe_align.checkpoint import MANIFEST, Damaged, verify
from safe_align.config import UserError
from safe_align.logger import METRICS
from safe_align.models.record import RECORD
from safe_align.ownership import ARGUMENTS, AVERAGED, FINISHING, LOCK, ORIGIN, PARTS, content_of

INNER = {'checkpoints', AVERAGED, FINISHING, PARTS, 'adapter', 'wandb', 'tensorboard'}  # of a stage, no stages
SHOWN = {
    RECORD, METRICS, 'summary.json', 'table.csv', 'certificate.json', 'costs.jsonl', 'eval.jsonl', 'comparisons.jsonl'
}  # fmt: skip
LARGEST = 1e100  # of a number that is shown; one beyond it, or that is none, is left out
Json = dict[str, Any]


@dataclass(frozen=True)
class Parent:
    """What a stage was made from.

    Args:
        role: the option that named it, in words.
        path: as it was given.
        hash: of its content at that time; None if it was not known.
        kind: 'policy', 'reward', 'cost', ...; None if it was not known.
        stage: the stage of this folder that it is.
        changed: whether that stage has other content now.
    """

    role: str
    path: str
    hash: str | None
    kind: str | None
    stage: Stage | None
    changed: bool


@dataclass(eq=False)
class Stage:
    """An output directory."""

    directory: Path
    label: str  # where it is in the folder
    slug: str  # names it in links
    state: str  # 'finished', 'running', 'stopped', or 'unfinished' where nobody can tell
    record: Json
    notes: list[str] = field(default_factory=list)
    parents: list[Parent] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the stage, such as 'ppo-lag'."""
        return str(self.record.get('stage', 'unknown'))

    @property
    def kind(self) -> str | None:
        """What it makes; an unfinished run does not say."""
        return self._part('kind', str, None)

    @cached_property
    def hashes(self) -> list[str]:
        """Content hashes by which others may know it: its own, and that of its averaged weights."""
        places = [self.directory, self.directory / AVERAGED] if self.state == 'finished' else []
        return [found for place in places if (place / MANIFEST).is_file() and (found := content_of(str(place)))]

    @cached_property
    def metrics(self) -> list[Json]:
        """The lines of metrics.jsonl; one that is cut is left out, and noted."""
        return read_lines(self.directory / METRICS, self.notes)

    @property
    def arguments(self) -> Json:
        """Its options."""
        return self._part('arguments', dict, {})

    @property
    def seconds(self) -> float | None:
        """Since its last start; None of an unfinished run."""
        return self._number('seconds_since_last_start') if self.state == 'finished' else None

    @property
    def finished(self) -> str:
        """When, in ISO 8601; empty if it does not say."""
        return self._part('finished', str, '')

    @property
    def memory(self) -> float | None:
        """The most that it held, in GiB."""
        return self._number('peak_memory_gib')

    @property
    def datasets(self) -> list[Json]:
        """What went into it, as far as its record counts it."""
        given = self._part('datasets', list, [])
        return [one for one in given if isinstance(one, dict) and isinstance(one.get('used'), int)]

    def _part(self, key: str, kind: Any, default: Any) -> Any:
        """Of the record, which somebody may have changed."""
        value = self.record.get(key)
        return value if isinstance(value, kind) else default

    def _number(self, key: str) -> float | None:
        value = self._part(key, int | float, None)
        return value if value is not None and abs(value) < LARGEST else None

    @property
    def summary(self) -> Any:
        """Of an evaluation; None if it has none."""
        return self.record.get('summary')

    def read(self, name: str) -> Json:
        """A JSON file of its; one that cannot be read is noted."""
        return read_object(self.directory / name, self.notes)


def stages_in(folder: Path) -> list[Stage]:
    """The stages of a folder, each behind those that it was made from.

    Raises:
        UserError: there is no such folder, or no stage in it.
    """
    if not folder.is_dir():
        raise UserError(f'{folder}: is no folder')
    stages: list[Stage] = []
    for directory in directories_in(folder):
        label = str(directory.relative_to(folder)) if directory != folder else folder.resolve().name
        slug = re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-') or 'stage'
        taken = {stage.slug for stage in stages}
        stages.append(_stage(directory, label, slug if slug not in taken else f'{slug}-{len(stages)}'))
    if not stages:
        raise UserError(f'{folder}: holds no output directory of a stage; a finished one has {RECORD}')
    for stage in stages:
        given = stage._part('parents', dict, {})
        stage.parents = [_parent(stage, role, told, stages) for role, told in given.items() if isinstance(told, dict)]
    return _in_order(stages)


def read_object(path: Path, notes: list[str]) -> Json:
    """A JSON file, empty if there is none; one that holds no object is noted."""
    try:
        return dict(json.loads(path.read_text(encoding='utf-8'))) if path.is_file() else {}
    except (OSError, ValueError, TypeError, RecursionError):
        notes.append(f'{path.name} cannot be read and is left out')
        return {}


def read_lines(path: Path, notes: list[str]) -> list[Json]:
    """The rows of a JSONL file, none if there is none; lines that are no rows are left out, and noted."""
    if not path.is_file():
        return []
    rows, bad = list[Json](), list[int]()
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').removesuffix('\n').split('\n')
    except OSError as error:
        notes.append(f'{path.name} cannot be read and is left out: {error.strerror}')
        return []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            bad.append(number)
    if bad:
        more = f' and {len(bad) - 1} more' if len(bad) > 1 else ''
        notes.append(f'{path.name}: line {bad[0]}{more} is cut or damaged and left out')
    return rows


def directories_in(folder: Path) -> Iterator[Path]:
    """Those that a stage has written, or is writing."""
    for place, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name not in INNER and not name.startswith('.'))
        if RECORD in files or ORIGIN in files:
            yield Path(place)


def _stage(directory: Path, label: str, slug: str) -> Stage:
    notes: list[str] = []
    record = read_object(directory / RECORD, notes)
    if (directory / MANIFEST).is_file() and record:
        try:
            names = json.loads((directory / MANIFEST).read_text(encoding='utf-8'))
            verify(directory, SHOWN & set(names))
        except (Damaged, ValueError, OSError, TypeError, RecursionError) as damage:
            notes.append(f'not as the stage left it: {damage}')
        return Stage(directory, label, slug, 'finished', record, notes)
    record = read_object(directory / ORIGIN, notes) | {'arguments': read_object(directory / ARGUMENTS, notes)}
    stage = Stage(directory, label, slug, state_of(directory), record, notes)
    steps = [path.name.removeprefix('step-') for path in directory.glob('checkpoints/step-*')]
    saved = [int(step) for step in steps if step.isdecimal()]
    reached = f'it has reached step {stage.metrics[-1].get("step")}' if stage.metrics else 'it has logged no step'
    again = f'the same command goes on from step {max(saved)}' if saved else 'it has no checkpoint'
    notes.insert(0, reached if stage.state == 'running' else f'{reached}; {again}')
    return stage


def state_of(directory: Path) -> str:
    """Of a run without a manifest: whether a process of this machine holds its lock.

    That is looked up, since to try the lock would hinder a start.
    """
    try:
        held = Path('/proc/locks').read_text(encoding='ascii').splitlines()
        inode = str((directory / LOCK).stat().st_ino)
    except OSError:
        return 'unfinished'
    return 'running' if any(line.split()[-3].split(':')[-1] == inode for line in held) else 'stopped'


def _parent(child: Stage, option: str, told: Json, stages: list[Stage]) -> Parent:
    """By its content where a stage has that, else by its path."""
    path = str(told.get('path'))
    content, kind = (str(told[key]) if told.get(key) else None for key in ('hash', 'kind'))
    place = Path(os.path.expanduser(path))  # which leaves somebody's home that is not here as it is
    parts = place.parts[:-1] if place.name == AVERAGED else place.parts
    named = [stage for stage in stages if stage.directory.resolve().parts[-len(parts) :] == parts]
    named += [stage for stage in stages if stage.directory == child.directory.parent / (parts or ('',))[-1]]
    same = [stage for stage in (*named, *stages) if content and content in stage.hashes]
    found = next((stage for stage in (*same, *named) if stage is not child), None)
    role = option.removesuffix('_name_or_path').replace('_', ' ')
    return Parent(role, path, content, kind, found, bool(found and found not in same))


def _in_order(stages: list[Stage]) -> list[Stage]:
    """Each behind its parents; those that could come next, in the order in which they ended."""
    left = sorted(stages, key=lambda stage: (stage.finished or '~', stage.label))
    done: list[Stage] = []
    while left:
        ready = (stage for stage in left if not any(parent.stage in left for parent in stage.parents))
        stage = next(ready, left[0])  # copies of one another could go round in a circle
        left.remove(stage)
        done.append(stage)
    return done
