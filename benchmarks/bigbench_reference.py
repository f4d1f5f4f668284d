"""The `bigbench` package's own reading and scoring of tasks, without TensorFlow, T5's trainer and BLEURT.

Its task and metric modules are imported as they are. What they import and a JSON task does not need is stood in for:
TensorFlow's file functions by Python's, `datasets.load_metric`, which is gone, by nothing, and the packages around T5's
`metrics.py` by empty ones. ROUGE is T5's, but the median of resampled means, which differs from call to call, is
replaced by the mean they are of; BLEURT, a network that is downloaded, is left out.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import datasets
from rouge_score import scoring


class Mean:
    """In the place of rouge-score's `BootstrapAggregator`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add_scores(self, scores: dict[str, Any]) -> None:
        """Of one response."""
        self.rows.append(scores)

    def aggregate(self) -> dict[str, Any]:
        """The mean in the place of the median and of both ends."""
        means = {name: sum(row[name].fmeasure for row in self.rows) / len(self.rows) for name in self.rows[0]}
        ends = {name: SimpleNamespace(fmeasure=value) for name, value in means.items()}
        return {name: SimpleNamespace(low=end, mid=end, high=end) for name, end in ends.items()}


def load(place: Path) -> SimpleNamespace:
    """`JsonTask`, `ResultsFileData` and `postprocess_output` of a folder that holds `bigbench` and `t5`, unpacked."""
    if not (place / 'bigbench/api/json_task.py').is_file() or not (place / 't5/evaluation/metrics.py').is_file():
        raise SystemExit(f'--reference {place}: has no bigbench/api/json_task.py beside t5/evaluation/metrics.py')
    gfile = SimpleNamespace(isdir=os.path.isdir, glob=glob.glob, GFile=open)
    tensorflow, compat = ModuleType('tensorflow'), ModuleType('tensorflow.compat')
    vars(tensorflow).update(io=SimpleNamespace(gfile=gfile), logging=SimpleNamespace(info=print))
    vars(compat).update(v1=tensorflow, v2=tensorflow)
    stand_ins = {
        'tensorflow': tensorflow, 'tensorflow.compat': compat, 'tensorflow.compat.v1': tensorflow,
        'tensorflow.compat.v2': tensorflow, 'editdistance': ModuleType('editdistance'),
        't5': _bare('t5', place / 't5'), 't5.evaluation': _bare('t5.evaluation', place / 't5/evaluation'),
    }  # fmt: skip
    sys.modules.update(stand_ins)
    datasets.load_metric = None
    sys.path.insert(0, str(place))
    scoring.BootstrapAggregator = Mean
    importlib.import_module('bigbench.api.task_metrics').GENERATIVE_FN['bleurt'] = lambda targets, responses: {}
    return SimpleNamespace(
        JsonTask=importlib.import_module('bigbench.api.json_task').JsonTask,
        ResultsFileData=importlib.import_module('bigbench.api.results').ResultsFileData,
        postprocess=importlib.import_module('bigbench.models.model_utils').postprocess_output,
    )


def _bare(name: str, folder: Path) -> ModuleType:
    """A package whose modules can be imported, without what it does itself."""
    module = ModuleType(name)
    module.__path__ = [str(folder)]
    return module


class Oracle:
    """A model for the reference whose answers are functions of what it is asked: any log-probabilities, many ties.

    Args:
        targets: the right answers to each input, some of which it gives, changed or not.
        postprocess: the reference's.
    """

    def __init__(self, targets: dict[str, list[str]], postprocess: Callable[..., str]) -> None:
        self.targets, self.postprocess = targets, postprocess

    def cond_log_prob(
        self, inputs: Sequence[str], targets: Sequence[Sequence[str]], absolute_normalization: bool
    ) -> list[list[float]]:
        """Of each target given each input."""
        assert absolute_normalization
        return [[log_prob(one, target) for target in some] for one, some in zip(inputs, targets, strict=True)]

    def generate_text(self, inputs: Sequence[str], stop_string: str | None, output_regex: str | None) -> list[str]:
        """Answers, cut as the reference cuts them."""
        return [self.postprocess(self.text(one), 0, stop_string, output_regex) for one in inputs]

    def text(self, question: str) -> str:
        """A target, with a tail or without its first word, or something else; an unknown question is an error."""
        some, draw = self.targets[question], number(question, 'text')
        target = some[draw % len(some)]
        tails = ('', '.', '\nQ: what', ' or so', '\n')
        return ' '.join(target.split(' ')[draw % 3 == 0 :]) + tails[draw % 7 % len(tails)]


def number(*texts: str) -> int:
    """Any, but always the same of the same texts."""
    return int.from_bytes(hashlib.blake2b('\0'.join(texts).encode(), digest_size=6).digest(), 'big')


def log_prob(question: str, answer: str) -> float:
    """Any, in quarters, so that choices tie."""
    return -(number(question, answer) % 80) / 4
