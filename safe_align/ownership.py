"""Who may write an output directory: whose run it holds, whether that is finished, and what of it may be removed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

from safe_align import functions
from safe_align.checkpoint import MANIFEST, PARTIAL, Damaged, file_hash, hash_files, verify, write_json
from safe_align.config import UserError
from safe_align.logger import METRICS
from safe_align.models.record import RECORD, base_of, record_of

ARGUMENTS, PROMPTS, LOCK = 'arguments.json', 'prompts.hashes', '.lock'
ORIGIN = '.origin.json'  # stage, parents, sizes and data, of an unfinished run too
SIZES = {  # over all processes, which may share them out in another way when a run goes on
    'rows a step': ('per_device_train_batch_size', 'gradient_accumulation_steps'),
    'prompts a round': ('per_device_prompt_batch_size',),
}
FREE = {
    'output_dir', 'overwrite', 'config', 'local_rank', 'log_type', 'log_dir', 'log_project', 'log_run_name',
    'zero_stage', 'offload', 'micro_batch_tokens', 'gradient_checkpointing', 'per_device_eval_batch_size',
    'generation_batch_size', 'judge_prices', 'judge_requests_per_minute',
    *(f'{who}_{what}' for who in ('server', 'judge') for what in ('url', 'concurrency', 'retries', 'timeout')),
    *(name for names in SIZES.values() for name in names),
}  # fmt: skip
CARD, FINISHING, AVERAGED = 'README.md', '.finishing', 'averaged'
APART = 'adapter'  # what could not be merged
PARTS = 'parts'  # what an unfinished run has done so far, where that is no training
JUDGEMENTS = 'judgements.jsonl'  # each answer of a judge, which a finished run keeps
OURS = {
    ARGUMENTS, METRICS, PROMPTS, ORIGIN, RECORD, MANIFEST, CARD, FINISHING, AVERAGED, APART, PARTS, JUDGEMENTS,
    'checkpoints',
}  # fmt: skip
_CHECKED: dict[str, tuple[str, Any]] = {}  # bases that were as they should be, with the sizes and times of their files
HARMLESS = {'.gitignore', 'script.sh', 'stdout.log', 'stderr.log', 'wandb', 'tensorboard'}


def parent_of(option: str, name_or_path: str) -> dict[str, Any]:
    """Path, kind and content hash of a model that a stage starts from; of a score function its name, file and hash.

    Raises:
        UserError: a model's files are not those that its stage wrote, or there is no such function.
    """
    if functions.is_function(name_or_path):
        function = functions.find(name_or_path, f'--{option}')
        return {'path': name_or_path, 'kind': 'function', 'hash': function.hash, 'file': Path(function.file).name}
    path = Path(name_or_path).expanduser()
    record = record_of(name_or_path) or {}
    _verify(path, f'--{option}')
    check_base(f'--{option}', name_or_path)
    return {'path': name_or_path, 'kind': record.get('kind'), 'hash': content_of(name_or_path)}


def _verify(path: Path, told_by: str) -> None:
    if (path / MANIFEST).is_file():
        try:
            verify(path)
        except Damaged as damage:
            raise UserError(f'{told_by}: damaged: {damage}') from None


def check_base(flag: str, name_or_path: str) -> None:
    """Refuse an adapter whose base is not the model that it was trained on, as far as that was written down.

    Raises:
        UserError: it has changed, or is damaged.
    """
    base = base_of(name_or_path)
    written = ((record_of(name_or_path) or {}).get('base') or {}).get('hash')
    if base is None or written is None:
        return
    place = Path(base).expanduser()
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in place.glob('*')]
    if _CHECKED.get(base) == (written, state):
        return  # a run opens several adapters of one base
    if content_of(base) != written:
        raise UserError(f'{flag} {name_or_path}: its base {base} has changed since it was trained')
    _verify(place, f'{flag} {name_or_path}: its base')
    _CHECKED[base] = (written, state)


def content_of(name_or_path: str) -> str | None:
    """The content hash of a model, of its manifest where it has one, of a file, or of a function; else None."""
    if functions.is_function(name_or_path):
        return functions.find(name_or_path, '--plugin').hash
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return file_hash(path)
    if (path / MANIFEST).is_file():
        names = [MANIFEST]
    elif path.is_dir():
        names = [file.name for file in path.iterdir() if file.suffix in ('.safetensors', '.bin', '.json')]
    else:
        names = []
    if not names:
        return None
    files: dict[str, Any] = hash_files(path, names)
    if MANIFEST not in names and (base := base_of(name_or_path)):  # a record of ours says what the base was
        files['base'] = content_of(base)
    return hashlib.blake2b(json.dumps(files, sort_keys=True).encode()).hexdigest()


def sizes_of(arguments: dict[str, Any], processes: int) -> dict[str, int]:
    """What makes a step, however processes and micro-batches share it out."""
    return {
        what: math.prod(arguments[name] for name in names) * processes
        for what, names in SIZES.items()
        if names[0] in arguments
    }


def claim(directory: Path, arguments: dict[str, Any], origin: dict[str, Any], overwrite: bool) -> bool:
    """Make the directory this run's; False if it holds this very run, finished. The caller has the lock.

    Args:
        directory: the output directory.
        arguments: the options, as JSON values.
        origin: the stage's name, its parents by option, its `sizes_of`, and names and fingerprints of its data sets.
        overwrite: whether another run in it makes way.

    Raises:
        UserError: it holds another run, or something else.
    """
    if not (directory / ARGUMENTS).is_file():
        _refuse_others(directory)
    elif overwrite:
        _clear(directory)
    elif _is_finished(directory, arguments, origin):
        remove(directory / PARTS)  # where the run was killed when its result was whole, and before it could
        print(f'{origin["stage"]}: {directory} holds this run, finished; --overwrite does it again', file=sys.stderr)
        return False
    write_json(directory / ORIGIN, origin)
    write_json(directory / ARGUMENTS, arguments)
    return True


def lock(directory: Path) -> Any:
    """Keep other processes out for as long as the handle that this returns lives.

    Raises:
        UserError: another process is in.
        OSError: the directory cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle = (directory / LOCK).open('a')
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f'--output_dir {directory}: another process is writing it') from None
    return handle


def _refuse_others(directory: Path) -> None:
    others = {path.name for path in directory.iterdir() if path.suffix != PARTIAL} - HARMLESS - {LOCK, ORIGIN}
    if others:
        raise UserError(f'--output_dir {directory}: holds files of something else ({sorted(others)[0]}, ...)')


def _is_finished(directory: Path, arguments: dict[str, Any], origin: dict[str, Any]) -> bool:
    """Whether the directory holds this run, finished; an unfinished one of the same options and parents may go on.

    Raises:
        UserError: it holds another, or a damaged one.
    """
    before = _written(directory / ARGUMENTS)
    changes = [
        f'--{key} {before.get(key)} there, {arguments.get(key)} here'
        for key in sorted({*before, *arguments} - FREE)
        if before.get(key) != arguments.get(key)
    ]
    if (directory / ORIGIN).is_file():
        was = {'stage': None, 'parents': {}, 'sizes': {}, **_written(directory / ORIGIN)}
        if was['stage'] != origin['stage']:
            changes.insert(0, f'{was["stage"]} there, {origin["stage"]} here')
        changes += [
            f'{size} {what} there, {origin["sizes"].get(what)} here, on all processes together'
            for what, size in was['sizes'].items()
            if size != origin['sizes'].get(what)
        ]
        changes += [
            f'the content of --{option} has changed since'
            for option, parent in was['parents'].items()
            if parent['hash'] != origin['parents'].get(option, {}).get('hash')
        ]
        changes += [
            f'the content of data set {name} has changed since'
            for (name, content), (_, now) in zip(was.get('data', ()), origin['data'], strict=False)
            if content != now
        ]
    if changes:
        raise UserError(
            f'--output_dir {directory}: holds another run ({changes[0]}); choose another directory, or --overwrite'
        )
    if not (directory / MANIFEST).is_file():
        return False
    try:
        verify(directory)
    except Damaged as damage:
        raise UserError(f'--output_dir: a finished run that is damaged: {damage}; --overwrite does it again') from None
    return True


def _written(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, TypeError):
        raise UserError(
            f'--output_dir {path.parent}: {path.name} is damaged; choose another directory, or --overwrite'
        ) from None


def _clear(directory: Path) -> None:
    """Remove what a run of ours left, but for what says that it was ours; its manifest goes last."""
    try:
        names = {name for name in json.loads((directory / MANIFEST).read_text(encoding='utf-8')) if '/' not in name}
    except (OSError, ValueError):
        names = set()
    for name in [*sorted((names | OURS) - {MANIFEST, ARGUMENTS}), MANIFEST]:
        remove(directory / name)


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
