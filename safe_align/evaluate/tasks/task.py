"""BIG-bench's JSON tasks (arXiv:2206.04615): what one is, what its metrics are called, and where it is found."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safe_align.config import UserError, nearest

FILE = 'task.json'
SCORING = ('log_likelihood',)
GENERATIVE = (
    'bleu', 'exact_str_match', 'case_insensitive_str_match', 'sequence_f1', 'numeric_match_with_0_1_relative_error',
    'rouge',
)  # fmt: skip
MULTIPLE_CHOICE = (
    'multiple_choice_grade', 'calibration_multiple_choice_brier_score', 'expected_calibration_error',
    'weighted_log_probabilities', 'weighted_probabilities', 'macro_f1',
)  # fmt: skip
LEFT_OUT = ('bleurt',)  # a score of a network that is downloaded
RANGES = {
    'bleu': (0.0, 100.0), 'sequence_f1': (0.0, 100.0), 'calibration_multiple_choice_brier_score': (0.0, 1.0),
    'expected_calibration_error': (0.0, 1.0), 'exact_str_match': (0.0, 1.0), 'case_insensitive_str_match': (0.0, 1.0),
    'log_likelihood': (-10.0, 0.0), 'multiple_choice_grade': (0.0, 1.0),
    'numeric_match_with_0_1_relative_error': (0.0, 1.0), 'rouge1': (0.0, 100.0), 'rouge2': (0.0, 100.0),
    'rougeLsum': (0.0, 100.0), 'weighted_log_probabilities': (-10.0, 0.0), 'weighted_probabilities': (-1.0, 1.0),
    'macro_f1': (0.0, 1.0),
}  # fmt: skip


def scores_of(metrics: Sequence[str]) -> list[str]:
    """The scores that these metrics give; some give several, and choices are always measured for calibration too."""
    names = {
        'rouge': ['rouge1', 'rouge2', 'rougeLsum'],
        'multiple_choice_grade': [
            'multiple_choice_grade', 'calibration_multiple_choice_brier_score', 'expected_calibration_error',
        ],
    }  # fmt: skip
    return list(dict.fromkeys(score for m in metrics if m not in LEFT_OUT for score in names.get(m, [m])))


@dataclass(frozen=True)
class Example:
    """A question as the file has it: the text, the right answers, and the score of each choice, if it has choices."""

    input: str
    targets: list[str]
    scores: dict[str, float]


@dataclass(frozen=True)
class Task:
    """A task with examples, or one with parts."""

    name: str  # of a part: WHOLE:PART
    place: str  # the file, for messages
    parts: tuple[Task, ...] = ()
    examples: tuple[Example, ...] = ()
    metrics: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    preferred_score: str = ''
    prefix: str = ''
    input_prefix: str = '\nQ: '
    output_prefix: str = '\nA: '
    choice_prefix: str = '\n  choice: '
    separator: str = '\n'
    shows_choices: bool = True
    is_absolute: bool = False
    output_regex: str | None = None
    stop_string: str | None = None

    @property
    def has_choices(self) -> bool:
        """Whether a metric is about choices."""
        return any(metric in MULTIPLE_CHOICE for metric in self.metrics)

    @property
    def is_generative(self) -> bool:
        """Whether a metric is about what the policy writes."""
        return any(metric in GENERATIVE for metric in self.metrics)

    @property
    def range(self) -> tuple[float, float]:
        """The scores that count as 0 and as 100; of choices, the first is what guessing gets."""
        low, high = RANGES[self.preferred_score]
        if self.preferred_score == 'multiple_choice_grade':
            low = sum(sum(one.scores.values()) / len(one.scores) for one in self.examples) / len(self.examples)
        return low, high

    def leaves(self) -> list[Task]:
        """The tasks with examples, in order."""
        return [leaf for part in self.parts for leaf in part.leaves()] if self.parts else [self]


def find(name: str, task_dir: str | None) -> Path:
    """The task.json of a task.

    Raises:
        UserError: there is no such task, or it is a program, or there is no place to look in.
    """
    root = _root(task_dir, name)
    folder = root / name
    if (folder / FILE).is_file():
        return folder / FILE
    if (folder / 'task.py').is_file():
        raise UserError(f'--task_name {name}: a program (task.py) and no {FILE}; only JSON tasks run here')
    known = [
        path.parent.relative_to(root).as_posix() for depth in ('*', '*/*') for path in root.glob(f'{depth}/{FILE}')
    ]
    if not known:
        raise UserError(f'--task_dir {root}: has no TASK/{FILE}, nor bigbench/benchmark_tasks/TASK/{FILE}')
    raise UserError(f'--task_name {name}: no such task in {root}{nearest(name, known)}')


def _root(task_dir: str | None, name: str) -> Path:
    if task_dir is None:
        spec = importlib.util.find_spec('bigbench')  # which imports nothing
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f'--task_name {name}: give --task_dir, a clone of BIG-bench, or install bigbench')
        return Path(next(iter(spec.submodule_search_locations))) / 'benchmark_tasks'
    place = Path(task_dir).expanduser()
    if not place.is_dir():
        raise UserError(f'--task_dir {task_dir}: no such directory')
    inside = place / 'bigbench/benchmark_tasks'
    return inside if inside.is_dir() else place
