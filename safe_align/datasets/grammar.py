"""The grammar of `--datasets`: NAME[:PROPORTION[:PATH]]."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from typing import Any

from safe_align.config import UserError


def parse_dataset(text: str) -> tuple[str, dict[str, Any]]:
    """Read 'NAME[:PROPORTION[:PATH]]', such as 'alpaca:0.75' or 'mine:1:~/data/mine'.

    A proportion is a number of times over (0.75, 1/3, 2; empty is 1) or, as N/-1, exactly N samples, which comes back
    as `Fraction(-N, 1)`. Everything behind the second colon is the path, so drive letters and URLs are whole.

    Returns:
        The name, and a dict with 'proportion' and, where one was given, 'path'.

    Raises:
        UserError: the text does not follow the grammar; the message says where.
    """
    name, *rest = text.split(':', 2)
    if not name.strip():
        raise UserError(f'{text!r}: the name of the data set is missing; expected NAME[:PROPORTION[:PATH]]')
    attributes: dict[str, Any] = {'proportion': _proportion(rest[0].strip(), text) if rest else 1.0}
    if len(rest) == 2:
        if not rest[1].strip():
            raise UserError(f'{text!r}: the path behind the second colon is empty')
        attributes['path'] = os.path.expanduser(rest[1])
    return name.strip(), attributes


def _proportion(text: str, whole: str) -> float | Fraction:
    if not text:
        return 1.0
    if text.startswith(('/', '~', '\\', './', '../')) or text.count('/') > 1:
        raise UserError(f'{whole!r}: {text!r} is a path where a proportion belongs; write NAME::PATH or NAME:1:PATH')
    numerator, slash, denominator = text.partition('/')
    if slash and denominator.strip() == '-1':
        return _count(numerator.strip(), whole)
    try:
        value = float(numerator) / float(denominator) if slash else float(numerator)
    except ZeroDivisionError:
        raise UserError(f'{whole!r}: the proportion {text!r} divides by zero') from None
    except ValueError:
        raise UserError(f'{whole!r}: the proportion {text!r} is not a number; use 0.75, 1/3, 2 or 100/-1') from None
    if not math.isfinite(value) or value < 0:
        raise UserError(f'{whole!r}: the proportion {text!r} must be finite and at least 0')
    return value


def _count(text: str, whole: str) -> float | Fraction:
    if not text.isdecimal() or len(text) > 18:
        raise UserError(f'{whole!r}: {text!r} is not a whole number of samples; N/-1 means exactly N samples')
    return Fraction(-int(text), 1) if int(text) else 0.0
