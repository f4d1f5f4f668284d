"""What a user picks by name and gives options NAME=VALUE: how these are read, and how it is told of."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from safe_align import plugins
from safe_align.config import UserError, nearest


class Listed(NamedTuple):
    """What a user is told of one of them."""

    name: str
    what: str
    needs: str
    options: str


def listing(folder: str) -> list[Listed]:
    """Of each module that a folder offers, the user's too: its name, what it is in a line, the flags that it needs."""
    found = []
    for name in plugins.names(folder):
        module = plugins.load(folder, name)
        needs = [f'--{option}' for option in getattr(module, 'NEEDS', ())]
        needs += [f'maybe --{option}' for option in getattr(module, 'READS', ())]
        found.append(Listed(name, first_line(module), ', '.join(needs), ''))
    return found


def first_line(module: ModuleType) -> str:
    """What a module is, in a line."""
    return (inspect.getdoc(module) or '').split('\n')[0]


def help_lines(listed: Iterable[Listed]) -> Iterator[str]:
    """The lines of `--help` that tell of them."""
    for name, first, needs, options in listed:
        yield f'\n  {name}: {first}\n      ' + '; '.join(filter(None, (needs, options)))


def table(kind: str, listed: Iterable[Listed]) -> str:
    """A table of them in Markdown, as docs/ has it."""
    lines = [f'| {kind} | what | needs | options |', '|---|---|---|---|']
    for name, what, needs, options in listed:
        shown = what.replace('|', chr(92) + '|')
        lines.append(f'| `{name}` | {shown} | {needs} | {f"`{options}`" if options else ""} |')
    return '\n'.join(lines)


def check_name(flag: str, name: str, known: Iterable[str]) -> None:
    """Refuse the name given to --FLAG if it is not known.

    Raises:
        UserError: the nearest is named.
    """
    known = list(known)
    if name not in known:
        raise UserError(f'--{flag} {name}: no such {flag}{nearest(name, known)}')


def check_pick(flag: str, folder: str, config: Any, among: Iterable[str]) -> None:
    """Refuse what --FLAG picks of a folder if it is not there, lacks an option, or does not read one of `among`.

    Its module says what it NEEDS and what else it READS; its own `check(config)`, if it has one, comes last.

    Raises:
        UserError: it says which flag.
    """
    name = getattr(config, flag)
    check_name(flag, name, plugins.names(folder))
    module = plugins.load(folder, name)
    needs = getattr(module, 'NEEDS', ())
    for option in among:
        if getattr(config, option, None) and option not in (*needs, *getattr(module, 'READS', ())):
            raise UserError(f'--{option}: --{flag} {name} reads none; leave it out')
    for option in needs:
        if not getattr(config, option, None):
            raise UserError(f'--{flag} {name}: needs --{option}')
    if check := getattr(module, 'check', None):
        check(config)


def read_options(flag: str, name: str, given: Sequence[str], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The values of options such as 'beta=0.2', each of the kind of its default (a number where it has none).

    Args:
        flag: by which the user picks; --FLAG_options gives the options.
        name: what was picked.
        given: as the user wrote them.
        known: the parameters that are options.

    Raises:
        UserError: there is no such option, a value is not of its kind, or one without a default is not given.
    """
    values = {}
    for text in given:
        key, equals, value = text.partition('=')
        if not equals or key not in known:
            has = ', '.join(known) or 'no options'
            raise UserError(f'--{flag}_options {text}: {name} has {has}{nearest(key, known)}')
        values[key] = _value(f'--{flag}_options {text}', value, known[key])
    for key, one in known.items():
        if one.default is one.empty and key not in values:
            raise UserError(f'--{flag} {name}: give its option {key}, which has no default: --{flag}_options {key}=...')
    return values


def _value(told: str, value: str, parameter: inspect.Parameter) -> Any:
    kind = type(parameter.default) if parameter.default is not parameter.empty else float
    if kind is bool:
        if value.lower() not in ('true', 'false'):
            raise UserError(f'{told}: True or False was expected')
        return value.lower() == 'true'
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise UserError(f'{told}: {kind.__name__} was expected') from error
