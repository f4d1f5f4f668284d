"""Scores of tasks and of their parts: aggregates, normalised scores, the table, and results in BIG-bench's own form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safe_align.evaluate.statistics import Estimate
from safe_align.evaluate.tasks.task import Task

AGGREGATE = 'normalized_aggregate_score'
GRADE = 'multiple_choice_grade'


@dataclass(frozen=True)
class Score:
    """What a policy gets in a task, or in one of its parts, with a number of solved examples.

    `counts` says how many questions there were, and of them were cut off at their beginning or got an empty answer.
    """

    task: str
    num_shots: int
    counts: dict[str, int]
    estimates: dict[str, Estimate]
    preferred: str
    low: float
    high: float
    is_whole: bool = False  # of parts

    @property
    def normalised(self) -> Estimate:
        """100 (score - low) / (high - low): 0 is what counts as poor, or guessing; 100 as the best."""
        score, width = self.estimates[self.preferred], self.high - self.low
        return Estimate(*(100 * (one - self.low) / width for one in score))

    def as_bigbench(self) -> dict[str, Any]:
        """A `ScoreData` of the `bigbench` package."""
        return {
            'score_dict': {name: one.value for name, one in self.estimates.items()},
            'preferred_score': self.preferred, 'number_of_shots': self.num_shots, 'low_score': self.low,
            'high_score': self.high, 'subtask_description': self.task,
        }  # fmt: skip

    def told(self) -> dict[str, Any]:
        """As JSON, with intervals."""
        return {
            'task': self.task, 'num_shots': self.num_shots, **self.counts, 'preferred_score': self.preferred,
            'low_score': self.low, 'high_score': self.high, 'normalised': self.normalised.told(),
            'scores': {name: one.told() for name, one in self.estimates.items()},
        }  # fmt: skip


def score_of(task: Task, num_shots: int, counts: dict[str, int], estimates: dict[str, Estimate]) -> Score:
    """The score of a task with examples."""
    score = Score(task.name, num_shots, counts, estimates, task.preferred_score, *task.range)
    estimates[AGGREGATE] = score.normalised
    return score


def with_wholes(task: Task, scores: Mapping[tuple[str, int], Score], shots: Sequence[int]) -> list[Score]:
    """The scores of a task's parts, by name and number of solved examples, and behind them those of the whole."""
    if not task.parts:
        return [scores[task.name, num_shots] for num_shots in shots]
    inner = [score for part in task.parts for score in with_wholes(part, scores, shots)]
    return inner + [_whole(task.name, n, [one for one in inner if one.num_shots == n]) for n in sorted(shots)]


def _whole(name: str, num_shots: int, parts: Sequence[Score]) -> Score:
    names = dict.fromkeys(metric for part in parts for metric in part.estimates)
    estimates = {
        metric: _average([part.estimates[metric] for part in parts if metric in part.estimates]) for metric in names
    }
    estimates[AGGREGATE] = _average([part.normalised for part in parts])
    leaves = [part.counts for part in parts if not part.is_whole]
    counts = {key: sum(leaf[key] for leaf in leaves) for key in leaves[0]}
    if {part.preferred for part in parts} == {GRADE}:
        low = sum(part.low for part in parts) / len(parts)
        return Score(name, num_shots, counts, estimates, GRADE, low, 1.0, True)
    return Score(name, num_shots, counts, estimates, AGGREGATE, 0.0, 100.0, True)


def _average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates; the widths of intervals add up as roots of sums of squares."""
    value = sum(one.value for one in estimates) / len(estimates)
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in estimates)) / len(estimates)
    above = math.sqrt(sum((one.high - one.value) ** 2 for one in estimates)) / len(estimates)
    return Estimate(value, value - below, value + above)


def results(task: str, scores: Sequence[Score], model: dict[str, Any]) -> dict[str, Any]:
    """What `ResultsFileData` of the `bigbench` package reads of one task."""
    return {'scores': [score.as_bigbench() for score in scores], 'task': {'task_name': task}, 'model': model}


def render(policy: str, scores: Sequence[Score]) -> str:
    """The scores as text for a terminal."""
    table = [['task', 'shots', 'questions', 'score', 'value', 'normalised']] + [
        [s.task, str(s.num_shots), str(s.counts['num_questions']), s.preferred, str(s.estimates[s.preferred]),
         f'{s.normalised.value:.1f}']
        for s in scores
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ['', f'BIG-bench, {policy}', 'value [95% interval over questions]; normalised: guessing 0, best 100', '']
    for cells in table:
        left = [f'{cells[n]:{"<" if n in (0, 3) else ">"}{widths[n]}}' for n in range(len(cells))]
        lines.append('  '.join(left).rstrip())
    for score in (one for one in scores if not one.is_whole):
        where = f'{score.task}, {score.num_shots} shots: '
        if cut := score.counts['num_cut']:
            lines.append(f'{where}{cut} questions were longer than --max_length and lost their beginning')
        if empty := score.counts['num_empty']:
            lines.append(f'{where}{empty} answers are empty: nothing was written, or nothing in it matches')
    return '\n'.join([*lines, ''])
