"""Judgements of other toolkits as files: AlpacaEval's rows of two generators and a preference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from safe_align.config import UserError
from safe_align.datasets.raw._rows import json_rows
from safe_align.evaluate.ratings import Ratings, rate, tally
from safe_align.evaluate.statistics import Estimate, clustered_rate

KEYS = ('generator_1', 'generator_2', 'preference')
PROMPTS = ('id', 'index', 'instruction')  # what a row may name its prompt by, the first that it has


class Annotations(NamedTuple):
    """Games between named models."""

    models: list[str]  # in the order in which they appear
    games: list[tuple[int, int, float, str]]  # generator_2, generator_1, outcome for generator_2, prompt
    num_unread: int  # rows without a preference, which the judge's answer gave none

    def win_rate(self, model: str, opponent: str) -> Estimate:
        """The mean over the rows of these two, one outcome a row, whichever of them is generator_2.

        Raises:
            UserError: there is no such row.
        """
        names = {model, opponent}
        outcomes: dict[str, list[float]] = {}
        for a, b, outcome, prompt in self.games:
            if {self.models[a], self.models[b]} == names:
                outcomes.setdefault(prompt, []).append(outcome if self.models[a] == model else 1 - outcome)
        if not outcomes:
            raise UserError(f'annotations: no row compares {model} with {opponent}; models: {", ".join(self.models)}')
        rows = outcomes.values()
        return clustered_rate([sum(found) for found in rows], [len(found) for found in rows])

    def ratings(self) -> Ratings:
        """Elo of all models, in their order."""
        return rate(tally(self.games, len(self.models)))


def read_annotations(path: str | Path) -> Annotations:
    """The rows of a JSON array or of JSON lines, gzipped or not.

    Raises:
        UserError: a file or row that cannot be read.
    """
    return annotations_of(json_rows('annotations', Path(path)))


def annotations_of(rows: Iterable[tuple[str, dict[str, Any]]]) -> Annotations:
    """Rows with the place that each is named by in messages.

    Preference 2 is a win of generator_2, 1 a loss, 0 or 1.5 a tie; between 1 and 2 the judge's chance of 2.

    A row without a preference is counted and left out, as the leaderboard does.

    Raises:
        UserError: a row without generators or prompt, or with another preference; it is named.
    """
    models: dict[str, int] = {}
    games, unread = [], 0
    for place, row in rows:
        missing = [key for key in KEYS if key not in row]
        prompt = next((key for key in PROMPTS if key in row), None)
        if missing or prompt is None:
            raise UserError(f'{place}: no {missing[0] if missing else " or ".join(PROMPTS)}')
        first, second = (models.setdefault(str(row[key]), len(models)) for key in KEYS[:2])
        preference = row['preference']
        if preference is None or (isinstance(preference, float) and math.isnan(preference)):
            unread += 1
            continue
        games.append((second, first, _outcome(preference, place), str(row[prompt])))
    return Annotations(list(models), games, unread)


def _outcome(preference: Any, place: str) -> float:
    """For generator_2."""
    if isinstance(preference, int | float):
        if preference == 0:
            return 0.5
        if 1 <= preference <= 2:
            return float(preference - 1)
    raise UserError(f'{place}: a preference of 0 or from 1 to 2 was expected; found {preference!r}')
