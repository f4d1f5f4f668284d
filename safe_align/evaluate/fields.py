"""Options that stages of evaluation share."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Literal

from safe_align.config import arg
from safe_align.fields import PlacementFields, RunFields, TemplateFields, datasets_arg

POLICY, COST_MODEL = '--model_name_or_path', '--cost_model_name_or_path'
JUDGES = 'safe_align.evaluate.judges'


@dataclass(kw_only=True, frozen=True)
class DrawFields:
    """How long a response may be, and how it is drawn."""

    max_length: int = arg(512, 'tokens of prompt and response together', low=2)
    max_new_tokens: int | None = arg(None, 'tokens of a response (default: what --max_length leaves)', low=1)
    temperature: float = arg(1.0, 'logits are divided by it; 0 takes the likeliest token', low=0)


@dataclass(kw_only=True, frozen=True)
class AnswerFields(TemplateFields, DrawFields, RunFields, PlacementFields):
    """How prompts are answered."""

    generation_batch_size: int = arg(128, 'rows decoded together; memory depends on it, responses do not', low=1)
    generation_backend: Literal['builtin', 'hf'] = arg('builtin', "ours, or transformers' generate")
    strict_data: bool = arg(False, 'the first row that cannot be used is an error')
    log_type: Literal['wandb', 'tensorboard', 'none'] = arg('none', 'tracker')


@dataclass(kw_only=True, frozen=True)
class ScoreModelFields(RunFields, PlacementFields):
    """A score model and the pairs that it is held against."""

    model_name_or_path: str = arg(help='score model, or function:NAME')
    datasets: list[str] = datasets_arg(MISSING, 'pairs that the model was not trained on')
    max_length: int = arg(512, 'tokens of prompt and response together', low=2)
    strict_data: bool = arg(False, 'the first row that cannot be used is an error')
    log_type: Literal['wandb', 'tensorboard', 'none'] = arg('none', 'tracker')
