"""The higher score of a function of one's own wins: function:NAME, given as the reward model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safe_align.config import UserError
from safe_align.evaluate.judges import score_models
from safe_align.functions import is_function

NEEDS = ('reward_model_name_or_path',)


def check(config: Any) -> None:
    """See this folder.

    Raises:
        UserError: a model was given.
    """
    given = config.reward_model_name_or_path
    if not is_function(given):
        raise UserError(f'--judge function: --reward_model_name_or_path {given}: function:NAME was expected')


def judge(tools: Any) -> Callable[..., Any]:
    """See this folder."""
    return score_models.judge(tools)
