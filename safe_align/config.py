"""A stage's options, declared once: a dataclass whose fields are its flags, its --help, its checks and its JSON.

Stages import torch inside `main` alone, so that `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from safe_align import plugins

Config = TypeVar('Config')


class UserError(argparse.ArgumentTypeError, ValueError):
    """A mistake that a user can make and mend: shown as one line, without a stack trace; the process exits with 2."""


def arg(
    default: Any = dataclasses.MISSING,
    help: str = '',
    *,
    aliases: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    check: Callable[[str], Any] | None = None,
    listed: Callable[[], Iterable[str]] | None = None,
    positional: bool = False,
) -> Any:
    """A field that is a flag.

    Args:
        default: its value when the flag is absent; without one the flag is required.
        help: the line in `--help`.
        aliases: other names of the flag.
        low: the smallest value allowed.
        high: the largest value allowed.
        check: called with each string given; raises `UserError` if it is no good.
        listed: names to show in `--help`, read only when it is asked for.
        positional: given as a word of its own, with no flag before it.
    """
    metadata = {'help': help, 'aliases': aliases, 'low': low, 'high': high, 'check': check, 'listed': listed}
    metadata['positional'] = positional
    kept: dict[str, Any] = {'default_factory': default.copy} if isinstance(default, list) else {'default': default}
    return dataclasses.field(**kept, metadata=metadata)


def nearest(name: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' if something near is known, else ''."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' (did you mean {close[0]}?)' if close else ''


def parse(config_class: type[Config], argv: Sequence[str] | None = None, prog: str | None = None) -> Config:
    """The options in `argv`; plug-ins named there are imported first, and `--config` gives the defaults.

    Raises:
        UserError: an unknown, missing, malformed or contradicting option.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    early = _Parser(add_help=False, allow_abbrev=False)
    early.add_argument('--plugin', nargs='+', default=[])
    early.add_argument('--config')
    first, _ = early.parse_known_args(argv)
    given = _read_options(first.config, config_class) if first.config else {}
    for plugin in first.plugin or given.get('plugin') or []:
        try:
            plugins.import_plugin(plugin)
        except ImportError as error:
            raise UserError(f'--plugin {plugin}: {error}') from error
    parser = _parser(config_class, given, prog)
    known = [flag for action in parser._actions for flag in action.option_strings]
    for flag in (word.split('=')[0] for word in argv if word.startswith('--')):
        if flag not in known:
            raise UserError(f'unknown flag {flag}{nearest(flag, known)}')
    values = {name: value for name, value in vars(parser.parse_args(argv)).items() if name != 'config'}
    _check(config_class, values)
    return config_class(**values)


def to_dict(config: Any) -> dict[str, Any]:
    """The options as plain JSON values, as `--config` reads them."""
    return dataclasses.asdict(config)


def run(config_class: type[Config], main: Callable[[Config], int | None]) -> None:
    """Parse and run a stage; a `UserError`, or one of the system, is one line on stderr and exit code 2."""
    spec = getattr(sys.modules['__main__'], '__spec__', None)
    prog = (spec.name if spec else Path(sys.argv[0]).stem).removesuffix('.__main__')
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')  # set in this process alone: forked workers would warn
    getattr(sys.stdout, 'reconfigure', dict)(errors='replace')  # a character that a terminal lacks ends no run
    try:
        if code := main(parse(config_class, prog=f'python -m {prog}' if spec else Path(sys.argv[0]).name)):
            raise SystemExit(code)
    except KeyboardInterrupt:  # before, or after, a stage listens to it itself
        raise SystemExit(130) from None
    except (UserError, OSError) as error:  # a path too long, a folder that may not be read, a disk that fails
        tell = sys.modules['tqdm'].tqdm.write if 'tqdm' in sys.modules else print  # not on the line of a progress bar
        tell(f'{prog}: error: {" ".join(str(error).split())}', file=sys.stderr)
        raise SystemExit(2) from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise UserError(message)


class _Help(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ''
        shown = action.default not in (None, '', argparse.SUPPRESS, []) and not action.required
        return f'{text} (default: %(default)s)' if shown and '--help' not in action.option_strings else text


def _parser(config_class: type, given: dict[str, Any], prog: str | None) -> _Parser:
    fields = [field for field in dataclasses.fields(config_class) if field.init]
    listings: dict[str, list[str]] = {}
    for field in fields:
        if field.metadata.get('listed') and {'-h', '--help'} & set(sys.argv):
            listings.setdefault(', '.join(sorted(field.metadata['listed']())), []).append(f'--{field.name}')
    epilog = '\n'.join(f'{" and ".join(flags)}: {names}' for names, flags in listings.items()).replace(', \n', '\n')
    parser = _Parser(
        prog=prog, description=config_class.__doc__, epilog=epilog, formatter_class=_Help, allow_abbrev=False
    )
    parser._negative_number_matcher = re.compile(r'-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$', re.IGNORECASE)  # -1e-3 is one
    parser.add_argument('--config', help='JSON or YAML file of defaults, such as the arguments.json of a run')
    hints = typing.get_type_hints(config_class)
    for field in fields:
        _add_flag(parser, field, hints[field.name], given)
    return parser


def _add_flag(parser: _Parser, field: dataclasses.Field[Any], hint: Any, given: dict[str, Any]) -> None:
    metadata, name = field.metadata, field.name
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    options: dict[str, Any] = {'dest': name, 'help': metadata['help'].replace('%', '%%')}
    options['required'] = default is dataclasses.MISSING and name not in given
    options['default'] = given.get(name, None if default is dataclasses.MISSING else default)
    kind, many = _kind(hint)
    if typing.get_origin(kind) is Literal:
        options['choices'] = typing.get_args(kind)
    elif kind is bool:
        options.update(type=_boolean, nargs='?', const=True, metavar='BOOL')
    else:
        options.update(type=kind, metavar=kind.__name__.upper())
    options |= {'nargs': '+'} if many else {}
    if metadata['positional']:
        parser.add_argument(name, type=kind, metavar=name.upper(), help=options['help'])
        return
    flags = [f'--{alias}' for alias in (name, *metadata['aliases'])]
    flags += [flag[:2] + flag[2:].replace('_', '-') for flag in flags if '_' in flag]
    parser.add_argument(*flags, **options)
    if kind is bool:
        parser.add_argument(
            f'--no_{name}', f'--no-{name.replace("_", "-")}', dest=name, action='store_false',
            default=argparse.SUPPRESS, help=argparse.SUPPRESS,
        )  # fmt: skip


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type of one value, and whether the flag takes several."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = [part for part in typing.get_args(hint) if part is not type(None)]
    return (typing.get_args(hint)[0], True) if typing.get_origin(hint) is list else (hint, False)


def _boolean(text: str) -> bool:
    words = {'true': True, 'yes': True, '1': True, 'on': True, 'false': False, 'no': False, '0': False, 'off': False}
    if text.lower() not in words:
        raise UserError(f'{text!r} is neither True nor False')
    return words[text.lower()]


def _read_options(path: str, config_class: type) -> dict[str, Any]:
    """The options in a file, each as its flag would read it."""
    try:
        options = _decode(Path(path).expanduser())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'--config {path}: {getattr(error, "strerror", None) or error}') from error
    if not isinstance(options, dict):
        raise UserError(f'--config {path}: a mapping of options was expected')
    hints = typing.get_type_hints(config_class)
    for name, value in options.items():
        if name not in hints:
            raise UserError(f'--config {path}: unknown option {name}{nearest(str(name), hints)}')
        try:
            options[name] = _value(value, hints[name])
        except ValueError as error:
            raise UserError(f'--config {path}: {name}: {error}') from error
    return options


def _decode(path: Path) -> Any:
    text = path.read_text(encoding='utf-8')
    if path.suffix not in ('.yaml', '.yml'):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f'not JSON: {error}') from error
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f'not YAML: {error}') from error


def _value(value: Any, hint: Any) -> Any:
    """A value from a file as its flag would read it."""
    kind, many = _kind(hint)
    if value is None and type(None) in typing.get_args(hint):
        return None
    if many != isinstance(value, list):
        raise ValueError(f'{value!r}: a {"list" if many else "single value"} was expected')
    if many:
        return [_value(one, kind) for one in value]
    if typing.get_origin(kind) is Literal:
        if str(value) not in typing.get_args(kind):
            raise ValueError(f'{value!r} is none of {", ".join(typing.get_args(kind))}')
        return str(value)
    if value is None or isinstance(value, dict):
        raise ValueError(f'{value!r} is no {kind.__name__}')
    return _boolean(str(value)) if kind is bool else kind(str(value))


def _check(config_class: type, values: dict[str, Any]) -> None:
    for field in dataclasses.fields(config_class):
        value, low, high, check = values.get(field.name), *(field.metadata[key] for key in ('low', 'high', 'check'))
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float) and not isinstance(one, bool):
                finite = abs(one) < float('inf')  # of the others sums make NaN, and JSON has no words for them
                if not finite or (low is not None and one < low) or (high is not None and one > high):
                    bounds = ' and '.join(f'at {w} {n}' for w, n in (('least', low), ('most', high)) if n is not None)
                    raise UserError(f'--{field.name} {one}: must be {bounds if finite else "a finite number"}')
            if check and isinstance(one, str):
                try:
                    check(one)
                except UserError as error:
                    raise UserError(f'--{field.name}: {error}') from error
