"""Examples of a BIG-bench task to the text that a policy reads, and what it writes to answers.

Both are as in the `bigbench` package 1.0.0. Numbers are drawn from numpy's RandomState as there, so that the same seed
gives the same questions, the same order of choices and the same solved examples; its default is 42, as ours.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from safe_align.config import UserError
from safe_align.evaluate.tasks.task import Example, Task


class Question(NamedTuple):
    """What a policy is asked, the right answers, and the score of each choice, if there are choices."""

    input: str
    targets: list[str]
    scores: dict[str, float]


def questions(task: Task, num_shots: int, seed: int, max_examples: int | None = None) -> list[Question]:
    """The questions of a task with examples, each behind `num_shots` solved ones.

    Without solved examples they stand as in the file, or are drawn from it if they are to be fewer; with them they are
    drawn in any case, so their order is another.

    Raises:
        UserError: the task has too few examples.
    """
    rng = np.random.RandomState(seed)
    asked = [_question(task, example, seed) for example in task.examples]
    most = min(max_examples or len(asked), len(asked))
    if len(asked) <= num_shots:
        raise UserError(f'--num_shots {num_shots}: {task.place} has {len(asked)} distinct examples')
    if num_shots:
        drawn = [int(n) for n in rng.choice(len(asked), most, replace=False)]
        return [_behind(task, _solved(asked, n, num_shots, rng), asked[n]) for n in drawn]
    if most < len(asked):
        asked = [asked[int(n)] for n in rng.choice(len(asked), most, replace=False)]
    return [_behind(task, [], question) for question in asked]


def _question(task: Task, example: Example, seed: int) -> Question:
    text = example.input
    if example.scores and task.shows_choices:
        order = np.random.RandomState(seed).permutation(sorted(example.scores))  # the same one for each question
        text += ''.join(f'{task.choice_prefix}{choice}' for choice in order)
    return Question(f'{task.input_prefix}{text}{task.output_prefix}', example.targets, example.scores)


def _solved(asked: list[Question], number: int, num_shots: int, rng: np.random.RandomState) -> list[str]:
    """Other questions with one of their answers each."""
    others = [n for n in range(len(asked)) if n != number]
    shots = [asked[others[int(n)]] for n in rng.choice(len(others), num_shots, replace=False)]
    return [shot.input + shot.targets[int(rng.choice(len(shot.targets)))] for shot in shots]


def _behind(task: Task, shots: list[str], question: Question) -> Question:
    return question._replace(input=task.prefix + task.separator.join([*shots, question.input]))


def answer_in(text: str, task: Task) -> str:
    """The answer in what a policy has written: up to and with the stop string, and of that the first match.

    As in BIG-bench, a stop string at the very beginning stops nothing, and text without a match is an empty answer.
    """
    if task.stop_string and (place := text.find(task.stop_string)) > 0:
        text = text[: place + len(task.stop_string)]
    if task.output_regex:
        return next(iter(re.findall(task.output_regex, text)), '')
    return text
