"""How rows come from outside: tables that the `datasets` library reads, JSON files, and what both agree on."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

from safe_align.config import UserError
from safe_align.datasets.registry import RawDataset, RawSample

HUB_NAME = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*')
BUILDERS = {
    '.json': 'json', '.jsonl': 'json', '.ndjson': 'json', '.parquet': 'parquet', '.csv': 'csv', '.arrow': 'arrow'
}  # fmt: skip
COMPRESSIONS = ('.gz', '.xz', '.bz2', '.zst', '.zip')
LFS_POINTER = b'version https://git-lfs'


class TableDataset(RawDataset):
    """A raw data set that the `datasets` library reads; a subclass says where it is and maps a row.

    A path given by the user may be a file, a directory of files, a clone of a hub repository, or a name on the hub.

    Raises:
        UserError: nothing can be read there, or the rows lack what the data set is made of.
    """

    PATH: ClassVar[str]
    SPLIT: ClassVar[str] = 'train'
    DATA_DIR: ClassVar[str | None] = None

    def __init__(self, path: str | None = None) -> None:
        super().__init__(path)
        self._where = path or self.PATH
        try:
            self._table, self._files = _read_table(self._where, self.SPLIT, self.DATA_DIR)
            if not len(self._table):
                raise ValueError('it holds no rows')
            self._rows = self.choose(self._table)
            if not len(self._rows):
                raise ValueError(f'none of its {len(self._table)} rows belongs to the data set')
        except (TypeError, ValueError) as error:
            raise UserError(f'data set {self.NAME}: {self._where}: {error}') from error
        self[0]  # a column that is missing is missing now, not in the middle of a run

    @staticmethod
    @abstractmethod
    def sample(row: dict[str, Any]) -> RawSample:
        """The row as a `RawSample`."""

    @staticmethod
    def choose(table: Any) -> Any:
        """The rows that become samples: those of the table, unless a rule looks at several of them at once."""
        return table

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> RawSample:
        row = self._rows[index]
        try:
            return self.sample(row)
        except (KeyError, TypeError, ValueError) as error:
            problem = f'{error} is missing' if isinstance(error, KeyError) else error
            columns = f'the columns found are {", ".join(row)}'
            raise UserError(f'data set {self.NAME}: {self._where}, row {index}: {problem}; {columns}') from error

    def fingerprint(self) -> str:
        """The hash of the local files, or what the `datasets` library calls the content of a hub data set."""
        return hash_files(self._files) if self._files else self._table._fingerprint


def _read_table(where: str, split: str, data_dir: str | None) -> tuple[Any, list[Path]]:
    """The table at a path, URL or hub name, and the local files that hold it (none for the hub)."""
    # unlike Path.expanduser, this leaves the ~ of an unknown user alone
    location, local = Path(os.path.expanduser(where)), True
    if location.is_dir():
        arguments: dict[str, Any] = {'path': str(_inner_directory(location, data_dir))}
    elif location.is_file() or '://' in where:
        arguments = {'path': _builder(where), 'data_files': {split: [where if '://' in where else str(location)]}}
    elif HUB_NAME.fullmatch(where) and location.suffix not in (*BUILDERS, *COMPRESSIONS):
        arguments, local = {'path': where, 'data_dir': data_dir}, False
    else:
        raise ValueError('no such file or directory')
    import datasets

    try:
        builder = datasets.load_dataset_builder(**arguments)
        found = (builder.config.data_files or {}).get(split, [])
        files = [Path(file) for file in found if local and '://' not in file]
        _refuse_empty_files(files)
        builder.download_and_prepare()
        return builder.as_dataset(split=split), files
    except UserError:
        raise
    except Exception as error:  # the library, its readers and its network clients share no base class of errors
        expected = f'expected JSON, JSON lines, parquet, CSV or Arrow files with a split {split!r}'
        if not local:
            expected = 'it is no local path either; name a local copy with NAME:1:PATH'
        raise ValueError(f'{_reason(error)}; {expected}') from error


def _inner_directory(location: Path, data_dir: str | None) -> Path:
    """The directory `data_dir` of a clone, or the location itself if it is that directory's copy."""
    if data_dir is None:
        return location
    if (location / data_dir).is_dir():
        return location / data_dir
    if location.name != data_dir and any(child.is_dir() and child.name[0] != '.' for child in location.iterdir()):
        raise ValueError(f'expected a directory {data_dir} in it')  # other subsets must not pass for this one
    return location


def _builder(where: str) -> str:
    suffixes = [suffix for suffix in Path(where.lower()).suffixes if suffix not in COMPRESSIONS]
    if not suffixes or suffixes[-1] not in BUILDERS:
        raise ValueError(f'unknown kind of file; expected a directory or a file that ends in {", ".join(BUILDERS)}')
    return BUILDERS[suffixes[-1]]


def _refuse_empty_files(files: Iterable[Path]) -> None:
    for file in files:
        with file.open('rb') as stream:
            start = stream.read(len(LFS_POINTER))
        if start in (b'', LFS_POINTER):
            found = 'a pointer of git-lfs and not the data; run `git lfs pull` there' if start else 'empty'
            raise UserError(f'{file.name} is {found}')


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom; the library's own error only says that something did."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')


def hash_files(files: Iterable[Path]) -> str:
    """The blake2b hash of the bytes of the files, one after the other."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open('rb') as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def find_files(name: str, path: str | None, suffixes: tuple[str, ...]) -> list[Path]:
    """The file at `path`, or the files of that directory with one of the suffixes, sorted by name.

    Raises:
        UserError: there is no path, or nothing there.
    """
    if path is None:
        raise UserError(f'data set {name}: needs a local path; write {name}:1:PATH')
    location = Path(os.path.expanduser(path))
    if location.is_file():
        return [location]
    if not location.is_dir():
        raise UserError(f'data set {name}: {path}: no such file or directory')
    files = sorted(file for file in location.iterdir() if file.name.endswith(suffixes) and file.is_file())
    if not files:
        raise UserError(f'data set {name}: {path}: the directory holds no file that ends in {" or ".join(suffixes)}')
    return files


def json_rows(name: str, file: Path, stream: BinaryIO | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a file of JSON lines or of one JSON array, gzipped or not, with its place.

    A place is what an error starts with: 'data set NAME: FILE, line 3'.

    Args:
        name: the data set.
        file: the file, or what to call it if a stream is given.
        stream: where to read from instead of the file.

    Raises:
        UserError: the file cannot be read, a line is no JSON, or a row is no object.
    """
    where = f'data set {name}: {file}'
    try:
        with stream or open_file(file) as lines:
            yield from json_objects(where, lines)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f'{where}: cannot be read: {error}') from error


def open_file(file: Path) -> BinaryIO:
    """The bytes of a file, gzipped or not."""
    return cast(BinaryIO, gzip.open(file, 'rb')) if file.suffix == '.gz' else file.open('rb')


def json_objects(where: str, lines: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `json_rows`, of what is open already; `where` is what a place starts with."""
    for place, row in _json_values(where, lines):
        if not isinstance(row, dict):
            raise UserError(f'{place}: a JSON object was expected, found {type(row).__name__}')
        yield place, row


def _json_values(where: str, lines: Any) -> Iterator[tuple[str, Any]]:
    started = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        array = not started and line.lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'[')
        started = True
        try:
            value = json.loads(line + lines.read() if array else line)
        except (ValueError, RecursionError) as error:
            last = number + (getattr(error, 'lineno', 1) - 1 if array else 0)
            expected = 'expected one JSON object a line, or one array of them'
            raise UserError(f'{where}, line {last}: not JSON: {getattr(error, "msg", error)}; {expected}') from error
        if array:
            yield from ((f'{where}, row {row}', item) for row, item in enumerate(value, start=1))
        else:
            yield f'{where}, line {number}', value


def flag(row: Mapping[str, Any], key: str) -> bool:
    """The truth value at `key`: true, false, 1 or 0 and nothing else."""
    if row[key] not in (0, 1):
        raise ValueError(f'{key} must be true or false, 1 or 0, found {row[key]!r:.80}')
    return bool(row[key])


def with_context(instruction: str, context: str | None) -> str:
    """An instruction and the text that it is about, joined as safe-rlhf does."""
    return f'{instruction} {context}' if context else instruction


def pku_sample(row: Mapping[str, Any]) -> RawSample:
    """A row of the PKU-SafeRLHF family; a label that is absent or null is left out."""
    sample = {'input': row['prompt'], 'answer': row['response_0'], 'other_answer': row['response_1']}
    for name, key in (('better', 'better_response_id'), ('safer', 'safer_response_id')):
        if row.get(key) is not None:
            sample[name] = not flag(row, key)
    for name, key in (('is_safe', 'is_response_0_safe'), ('is_other_safe', 'is_response_1_safe')):
        if row.get(key) is not None:
            sample[name] = flag(row, key)
    return cast(RawSample, sample)
