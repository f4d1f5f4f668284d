"""Options that the ways to talk share."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.config import arg
from safe_align.evaluate.fields import DrawFields
from safe_align.fields import PlacementFields, TemplateFields


@dataclass(kw_only=True, frozen=True)
class ChatFields(TemplateFields, DrawFields, PlacementFields):
    """How a policy answers, and who scores its answers."""

    top_p: float = arg(1.0, 'the likeliest tokens with this much probability are drawn from', low=0, high=1)
    stream: bool = arg(True, 'show an answer token by token; with --no_stream as a whole')
    reward_model_name_or_path: str | None = arg(None, 'reward model, or function:NAME; shows the reward of each answer')
    cost_model_name_or_path: str | None = arg(None, 'cost model, or function:NAME; shows the cost of each answer')
    seed: int = arg(42, 'fixes everything that is drawn', low=0)
    plugin: list[str] = arg([], "files or modules with score functions of one's own")
