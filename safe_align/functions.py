"""Score functions: a number for a response by a rule of the user's own, in the place of a reward or cost model.

A file that `--plugin` names registers one by `@score_function`; flags that take a reward or cost model take it as
`function:NAME`. As a cost its zero is the border by definition: a response with a cost above 0 is unsafe.
"""

from __future__ import annotations

import hashlib
import inspect
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safe_align.config import UserError, nearest

PREFIX = 'function:'
LARGEST = 3.4e38  # of the float32 that scores are
Function = Callable[[list[str], str], float]
Registered = TypeVar('Registered', bound=Function)


@dataclass(frozen=True)
class ScoreFunction:
    """A function of a prompt's turns (user, assistant, ..., user) and a response's text, by its name."""

    name: str
    function: Function
    file: str
    hash: str  # of the name and the content of the file that defines it; not of what that file imports

    def __call__(self, turns: Sequence[str], response: str) -> float:
        """The number.

        Raises:
            UserError: the function raised, or returned no finite number.
        """
        where, what = f'{PREFIX}{self.name} of {self.file}', f'for the response {response!r:.80}'
        try:
            score = self.function(list(turns), response)
        except Exception as error:
            raise UserError(f'{where}: {type(error).__name__}: {error}, {what}') from error
        if not isinstance(score, numbers.Real) or not abs(score) <= LARGEST:
            raise UserError(f'{where}: must return a finite number in float32, returned {score!r:.80}, {what}')
        return float(score)


_registry: dict[str, ScoreFunction] = {}


def score_function(function: Registered) -> Registered:
    """Make a function known by its name; its number must depend on nothing but prompt and response.

    Raises:
        UserError: another file has a function of that name, or nothing says what file it is in.
    """
    name, file = function.__name__, inspect.getsourcefile(function)
    if file is None or not Path(file).is_file():
        raise UserError(f'{PREFIX}{name}: must be defined in a file, whose content goes on record')
    known = _registry.get(name)
    if known is not None and known.file != file:
        raise UserError(f'{PREFIX}{name}: the name is taken by {known.file}')
    content = hashlib.blake2b(name.encode() + b'\0' + Path(file).read_bytes()).hexdigest()
    _registry[name] = ScoreFunction(name, function, file, content)
    return function


def is_function(name_or_path: str) -> bool:
    """Whether a flag that takes a model was given a score function."""
    return name_or_path.startswith(PREFIX)


def find(name_or_path: str, flag: str) -> ScoreFunction:
    """The score function `function:NAME`.

    Raises:
        UserError: there is none; the nearest is named.
    """
    name = name_or_path.removeprefix(PREFIX)
    if name not in _registry:
        known = ', '.join(sorted(_registry)) or 'none'
        raise UserError(
            f'{flag} {name_or_path}: no such score function{nearest(name, _registry)}; known: {known}; one of your own '
            'is made known by --plugin'
        )
    return _registry[name]
