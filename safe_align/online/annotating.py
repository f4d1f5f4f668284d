"""An annotator by its name, the models that it asks for, and what it says of responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from safe_align import distributed, plugins
from safe_align.config import UserError
from safe_align.functions import is_function
from safe_align.online.annotate_fields import AnnotatorFields
from safe_align.online.feedback import Choice, border_of
from safe_align.online.listings import ANNOTATORS
from safe_align.options import check_name, check_pick
from safe_align.remote.journal import Journal

if TYPE_CHECKING:
    from safe_align.losses import Needs
    from safe_align.models.scorer import Conversation, Scorer
    from safe_align.online.annotate import AnnotateConfig

Columns = dict[str, list[float]]  # 'score', and what else was found, of each response
SCORERS = {f'{kind}_model_name_or_path': kind for kind in ('reward', 'cost')}


@dataclass(frozen=True)
class Tools:
    """What an annotator is given, as its folder says."""

    config: Any
    scorer: Callable[[str], Scorer]  # by its kind, 'reward' or 'cost'
    journal: Callable[[], Journal]
    say: Callable[[str], object]
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotator:
    """What `--annotator` names."""

    name: str
    call: Callable[[Sequence[Any]], Any]

    def scores(self, conversations: Sequence[Conversation]) -> Columns:
        """What it says of each response.

        Raises:
            UserError: it is no finite number for each.
        """
        said = self.call(conversations)
        columns = said if isinstance(said, dict) else {'score': said}
        found = {name: [float(value) for value in values] for name, values in columns.items()}
        for name, values in found.items():
            if len(values) != len(conversations) or not all(map(math.isfinite, values)):
                raise UserError(
                    f'--annotator {self.name}: {name}: {len(conversations)} finite numbers were expected, '
                    f'found {len(values)}: {values[:3]}'
                )
        return found

    def verdicts(self, pairs: Sequence[tuple[Conversation, Conversation]]) -> list[float | None]:
        """Of each pair how much its first is the better one: 1, 0, 0.5 for a tie, None where it abstains.

        Raises:
            UserError: it is none of that for each.
        """
        found = list(self.call(pairs))
        odd = [verdict for verdict in found if verdict not in (0, 0.5, 1, None)]
        if odd or len(found) != len(pairs):
            raise UserError(
                f'--annotator {self.name}: {len(pairs)} times 1, 0, 0.5 or None were expected, found {len(found)}: '
                f'{(odd or found)[:3]}'
            )
        return found


def compares(config: AnnotatorFields) -> bool:
    """Whether the annotator compares responses, and scores none."""
    return bool(getattr(plugins.load(ANNOTATORS, config.annotator), 'COMPARES', False))


def keeps(config: AnnotatorFields) -> bool:
    """Whether the annotator itself writes down what it has paid for."""
    return bool(getattr(plugins.load(ANNOTATORS, config.annotator), 'KEEPS', False))


def are_models(config: AnnotatorFields) -> bool:
    """Whether score models alone say what is better, and no function or annotator of the user's own."""
    given = (config.reward_model_name_or_path, config.cost_model_name_or_path)
    return plugins.own_file(ANNOTATORS, config.annotator) is None and not any(map(is_function, filter(None, given)))


def needs_of(annotator: str) -> Sequence[str]:
    """The options without which an annotator cannot work.

    Raises:
        UserError: there is no such annotator.
    """
    check_name('annotator', annotator, plugins.names(ANNOTATORS))
    return getattr(plugins.load(ANNOTATORS, annotator), 'NEEDS', ())


def check_needs(config: Any) -> None:
    """Refuse an annotator that is unknown, lacks what it needs, or is given what it does not read.

    Raises:
        UserError: it says which flag.
    """
    check_pick('annotator', ANNOTATORS, config, (*SCORERS, 'judge_url'))


def check_annotator(config: Any) -> None:
    """The same, and refuse models that are not what they are given for, before anything is written.

    Raises:
        UserError: it says which flag.
    """
    check_needs(config)
    check_means('annotator', config, keeps(config))


def check_means(flag: str, config: Any, alone: bool) -> None:
    """Refuse score models that are none, and several processes where the one that `flag` names works `alone`.

    Raises:
        UserError: it says which flag.
    """
    from safe_align.models.scorer import check_scorer  # which takes torch

    for option, kind in SCORERS.items():
        if given := getattr(config, option):
            check_scorer(given, kind, f'--{option}', config.max_length, config.trust_remote_code)
    if alone and distributed.world_size() > 1:
        raise UserError(f'--{flag} {getattr(config, flag)}: works in one process; start it without a launcher')


def check_feedback_type(config: AnnotateConfig) -> None:
    """Refuse feedback that cannot be made of what the annotator says.

    Raises:
        UserError: it says which flag.
    """
    choice_of(config)
    if config.feedback_type != 'pairwise' and compares(config):
        raise UserError(f'--feedback_type {config.feedback_type}: --annotator {config.annotator} gives no scores')
    if config.feedback_type == 'pointwise':
        border_of(config.desirable_from, [0.0])


def feedback_for(loss: str, needs: Needs, num_samples: int) -> Literal['pairwise', 'pointwise']:
    """The kind of feedback that a loss learns from.

    Raises:
        UserError: none on so many responses to a prompt is.
    """
    if 'weak_gap' in needs.names:
        raise UserError(f'--loss {loss}: learns from pairs of pairs, which no annotator gives')
    if needs.rows == 'answers':
        return 'pointwise'
    if num_samples < 2:
        raise UserError(f'--num_return_sequences {num_samples}: --loss {loss} learns from pairs; give 2 or more')
    return 'pairwise'


def choice_of(config: AnnotatorFields) -> Choice:
    """Which pairs are compared.

    Raises:
        UserError: the best of many is asked of an annotator that scores none.
    """
    if not compares(config):
        return config.pairs or 'max_min'
    if config.pairs not in (None, 'random'):
        raise UserError(f'--pairs {config.pairs}: --annotator {config.annotator} gives no scores; only random')
    return 'random'


def open_annotator(tools: Tools) -> Annotator:
    """The annotator, with the models that it asks for."""
    name = tools.config.annotator
    return Annotator(name, plugins.load(ANNOTATORS, name).annotator(tools))
