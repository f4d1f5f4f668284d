"""Answers side by side, for the browser of the page: what several policies said to the same prompts."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from safe_align.evaluate.reporting.collect import Json, Stage, read_lines
from safe_align.evaluate.reporting.html import Markup
from safe_align.evaluate.reporting.words import clipped

FILES = ('table.csv', 'eval.jsonl', 'comparisons.jsonl')
LONGEST = 4000  # characters of a text on the page
ROOM = 1_200_000  # characters of all texts on the page
END = '_answer'  # of the columns that hold what a policy said
SIDES = ['candidate', 'baseline']  # the columns in which comparisons.jsonl has it


def sources_of(stages: list[Stage]) -> list[Json]:
    """Each file of answers: where it lies, whose answers they are, and the rows for which there is room."""
    found: list[Json] = []
    for stage in stages:
        for name in FILES:
            rows = [row for row in _rows(stage, stage.directory / name) if len(_players(row)) > 1]
            if rows:
                players = _players(rows[0])
                short = [_row(row, players) for row in rows]
                found.append({
                    'name': f'{stage.label}/{name}', 'players': players, 'rows': short, 'total': len(rows),
                    'titles': [_title(stage, one) for one in players],
                    'cut': sum(len(text) == LONGEST for row in short for text in (row['p'], *(a[0] for a in row['a']))),
                })  # fmt: skip
    room = ROOM // max(1, len(found))
    for source in found:
        source['rows'] = list(_fitting(source['rows'], room))
    return found


def as_json(sources: list[Json]) -> Markup:
    """For a script element: no text in it can end that element."""
    told = json.dumps(sources, ensure_ascii=False, separators=(',', ':'))
    return Markup(told.replace('&', '\\u0026').replace('<', '\\u003c').replace('>', '\\u003e'))


def cut(sources: list[Json]) -> list[str]:
    """What is not on the page."""
    told = []
    for source in sources:
        if len(source['rows']) < source['total']:
            told.append(f'{source["name"]}: the first {len(source["rows"])} of {source["total"]} rows are here.')
        if source['cut']:
            told.append(f'{source["name"]}: {source["cut"]} texts are cut at {LONGEST} characters, and end with ….')
    return told


def _rows(stage: Stage, path: Path) -> list[Json]:
    if path.suffix == '.jsonl':
        return read_lines(path, stage.notes)
    if not path.is_file():
        return []
    csv.field_size_limit(sys.maxsize)
    with path.open(newline='', encoding='utf-8', errors='replace') as file:
        try:
            return list(csv.DictReader(file))
        except csv.Error as error:
            stage.notes.append(f'{path.name} cannot be read and is left out: {error}')
            return []


def _players(row: Json) -> list[str]:
    named = [key.removesuffix(END) for key in row if key and key.endswith(END)]
    return named or [side for side in SIDES if side in row]


def _title(stage: Stage, player: str) -> str:
    """A corner, and who stood in it."""
    policy = stage.summary.get(player) if isinstance(stage.summary, dict) else None
    return f'{player}, {PurePath(policy).name}' if isinstance(policy, str) else player


def _row(row: Json, players: list[str]) -> Json:
    """Short keys, since there may be many rows: p prompt, c category, a answers of [text, reward, cost], v verdict."""
    answers = [
        [_text(row.get(f'{one}{END}', row.get(one))),
         *(_number(row.get(f'{one}_{kind}')) for kind in ('reward', 'cost'))]
        for one in players
    ]  # fmt: skip
    return {'p': _text(row.get('prompt')), 'c': row.get('category') or None, 'a': answers, 'v': row.get('verdict')}


def _text(value: Any) -> str:
    """A text, or the turns of a conversation."""
    if isinstance(value, list):
        value = '\n\n'.join(str(turn.get('content')) if isinstance(turn, dict) else str(turn) for turn in value)
    return clipped('' if value is None else str(value), LONGEST)


def _number(value: Any) -> float | None:
    try:
        return round(float(value), 4)
    except (TypeError, ValueError):
        return None


def _fitting(rows: list[Json], room: int) -> Iterator[Json]:
    for row in rows:
        room -= len(row['p']) + sum(len(text) for text, *_ in row['a']) + 60
        if room < 0:
            return
        yield row
