"""What a task.json says, key by key, and what is wrong with one that breaks BIG-bench's schema.

The keys and their defaults are those of the `bigbench` package 1.0.0, which also leaves `low_score` and `high_score` of
a file unread: the range of a score follows from its metric.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safe_align.config import UserError, nearest
from safe_align.evaluate.tasks.task import (
    FILE,
    GENERATIVE,
    LEFT_OUT,
    MULTIPLE_CHOICE,
    SCORING,
    Example,
    Task,
    scores_of,
)

LARGEST = 1e100  # of a score: sums of such numbers are finite
DEFAULT_REGEX = r'[^\.\?\!\;\n]+'  # the first sentence
KINDS: dict[type, str] = {str: 'text', list: 'a list', dict: 'a mapping'}


def read(path: Path) -> Task:
    """The task in a file, and its parts, from the file itself or from folders beside it.

    Raises:
        UserError: it names the file and the key that is wrong.
    """
    return _task(_decode(path), path, None)


def _decode(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.expanduser().read_text(encoding='utf-8'))
        json.dumps(data, ensure_ascii=False).encode()  # of half of a surrogate pair no tokenizer makes anything
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from error
    except UnicodeEncodeError as error:
        raise UserError(f'{path}: holds half of a surrogate pair, {error.object[error.start]!a}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path}: not JSON: {error}') from error
    if not isinstance(data, dict):
        raise UserError(f'{path}: a mapping with the keys of a task was expected')
    return data


def _task(data: dict[str, Any], path: Path, whole: str | None) -> Task:
    where = str(path)
    name = str(_key(data, 'name', (str,), where)).encode('ascii', 'replace').decode()
    name = name if whole is None else f'{whole}:{name}'
    where = where if whole is None else f'{where}: {name}'
    for key, kind in (('canary', (str,)), ('description', (str,)), ('keywords', (list,))):
        _key(data, key, kind, where)
    if 'subtasks' in data:
        parts = [_task(_mapping(one, 'subtasks', where), path, name) for one in _key(data, 'subtasks', (list,), where)]
    elif 'examples' not in data:
        inside = sorted(path.parent.glob(f'*/{FILE}'))
        parts = [_task(_decode(one), one, name) for one in inside]
    else:
        return _leaf(data, name, where)
    if not parts:
        raise UserError(f'{where}: examples: missing, and there are no subtasks')
    if len({part.name for part in parts}) < len(parts):
        raise UserError(f'{where}: subtasks: two have the same name')
    return Task(name, where, tuple(parts))


def _leaf(data: dict[str, Any], name: str, where: str) -> Task:
    named = _strings(data, 'metrics', where)
    known = (*SCORING, *GENERATIVE, *MULTIPLE_CHOICE)
    for metric in named:
        if metric not in (*known, *LEFT_OUT):
            raise UserError(f'{where}: metrics: {metric!r} is none of BIG-bench{nearest(metric, known)}')
    preferred = _key(data, 'preferred_score', (str,), where)
    computed = scores_of(named)
    if preferred in LEFT_OUT:
        raise UserError(f'{where}: preferred_score: {preferred!r} is not computed here')
    if preferred not in computed:
        raise UserError(f'{where}: preferred_score: {preferred!r} is none of {", ".join(computed) or "no metrics"}')
    texts = {
        field: _key(data, key, (str,), where)
        for field, key in (
            ('prefix', 'task_prefix'), ('input_prefix', 'example_input_prefix'),
            ('output_prefix', 'example_output_prefix'), ('choice_prefix', 'choice_prefix'),
            ('separator', 'few_shot_example_separator'), ('output_regex', 'output_regex'),
            ('stop_string', 'stop_string'),
        ) if data.get(key) is not None
    }  # fmt: skip
    task = Task(
        name, where, examples=_examples(data, named, where), metrics=tuple(m for m in named if m in known),
        left_out=tuple(m for m in named if m not in known), preferred_score=preferred,
        shows_choices=bool(data.get('append_choices_to_input', True)),
        is_absolute=bool(data.get('absolute_normalization', False)), **_with_regex(texts, where),
    )  # fmt: skip
    low, high = task.range
    if high <= low:
        raise UserError(f'{where}: target_scores: guessing gets {low:g} of {high:g}, so nothing can be told')
    return task


def _with_regex(texts: dict[str, Any], where: str) -> dict[str, Any]:
    """With the default expression, where nothing says how an answer ends."""
    if 'output_regex' not in texts and 'stop_string' not in texts:
        texts['output_regex'] = DEFAULT_REGEX
    try:
        groups = re.compile(texts.get('output_regex') or '').groups
    except (re.error, OverflowError, RecursionError) as error:  # of a{99999999999}, of brackets in brackets
        raise UserError(f'{where}: output_regex: {error}') from error
    if groups > 1:
        raise UserError(f'{where}: output_regex: has {groups} groups, of which one can be the answer; write (?:...)')
    return texts


def _examples(data: dict[str, Any], metrics: Sequence[str], where: str) -> tuple[Example, ...]:
    """Each example once."""
    rows = _key(data, 'examples', (list,), where)
    distinct: dict[str, tuple[int, Any]] = {}
    for n, row in enumerate(rows):
        distinct.setdefault(json.dumps(row), (n, row))
    if not distinct:
        raise UserError(f'{where}: examples: there are none')
    return tuple(_example(row, metrics, f'{where}: examples[{n}]') for n, row in distinct.values())


def _example(row: Any, metrics: Sequence[str], where: str) -> Example:
    row = _mapping(row, 'example', where)
    text = _key(row, 'input', (str,), where)
    scores = _key(row, 'target_scores', (dict,), where) if 'target_scores' in row else {}
    if not all(map(_is_number, scores.values())):
        raise UserError(f'{where}: target_scores: a finite number is missing for a choice')
    if any(metric in MULTIPLE_CHOICE for metric in metrics) and not scores:
        raise UserError(f'{where}: target_scores: missing, which a metric of choices needs')
    if 'macro_f1' in metrics and sorted(scores.values()) != [0] * (len(scores) - 1) + [1]:
        raise UserError(f'{where}: target_scores: macro_f1 needs one choice with 1, and 0 elsewhere')
    if 'target' in row:
        target = _key(row, 'target', (str, list), where)
        targets = [target] if isinstance(target, str) else _strings(row, 'target', where)
    elif any(metric in (*GENERATIVE, *SCORING) for metric in metrics) or not scores:
        raise UserError(f'{where}: target: missing')
    else:
        targets = [_best(scores, where)]
    _check_targets(targets, metrics, where)
    return Example(text, targets, {str(choice): score for choice, score in scores.items()})


def _check_targets(targets: Sequence[str], metrics: Sequence[str], where: str) -> None:
    if 'numeric_match_with_0_1_relative_error' in metrics and len(targets) != 1:
        raise UserError(f'{where}: target: numeric_match_with_0_1_relative_error needs one, not {len(targets)}')
    if 'log_likelihood' in metrics and not all(target.split() for target in targets):
        raise UserError(f'{where}: target: is empty, so log_likelihood has no words to count')


def _best(scores: dict[str, float], where: str) -> str:
    """The first of the choices with the highest score, if one has a higher one than the others."""
    most, least = max(scores.values()), min(scores.values())
    if most <= least if len(scores) > 1 else most == 0:
        raise UserError(f'{where}: target_scores: no choice is better than the others')
    return next(choice for choice, score in scores.items() if score == most)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= LARGEST  # which NaN is not


def _key(data: dict[str, Any], key: str, kinds: tuple[type, ...], where: str) -> Any:
    if key not in data:
        raise UserError(f'{where}: {key}: missing')
    if not isinstance(data[key], kinds):
        wanted = ' or '.join(KINDS[kind] for kind in kinds)
        raise UserError(f'{where}: {key}: {wanted} was expected, not {type(data[key]).__name__}')
    return data[key]


def _strings(data: dict[str, Any], key: str, where: str) -> list[str]:
    values = _key(data, key, (list,), where)
    if not values or not all(isinstance(value, str) for value in values):
        raise UserError(f'{where}: {key}: a list of texts was expected')
    return values


def _mapping(value: Any, key: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f'{where}: {key}: a mapping was expected, not {type(value).__name__}')
    return value
