"""Stage: two policies answer the same held-out prompts; a reward and a cost model compare the answers."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Literal

from safe_align.config import arg, run
from safe_align.fields import PlacementFields, RunFields, datasets_arg


@dataclass(kw_only=True, frozen=True)
class ArenaConfig(RunFields, PlacementFields):
    """Let two policies answer the same prompts, and compare reward and cost of the answers, prompt by prompt."""

    red_corner_model_name_or_path: str = arg(help='policy in the red corner, the one to beat')
    blue_corner_model_name_or_path: str = arg(help='policy in the blue corner')
    reward_model_name_or_path: str = arg(help='reward model')
    cost_model_name_or_path: str = arg(help='cost model')
    datasets: list[str] = datasets_arg(MISSING, 'prompts that neither policy was trained on')
    max_length: int = arg(512, 'tokens of prompt and response together', low=2)
    max_new_tokens: int | None = arg(None, 'tokens of a response (default: what --max_length leaves)', low=1)
    temperature: float = arg(1.0, 'logits are divided by it; 0 takes the likeliest token', low=0)
    num_return_sequences: int = arg(1, 'responses of each policy to a prompt; the prompt is the unit', low=1)
    generation_batch_size: int = arg(128, 'rows decoded together; memory depends on it, responses do not', low=1)
    generation_backend: Literal['builtin', 'hf'] = arg('builtin', "ours, or transformers' generate")
    template: Literal['auto', 'chat', 'safe-rlhf'] = arg(
        'auto', "each tokenizer's chat template, or safe-rlhf's format"
    )
    strict_data: bool = arg(False, 'the first row that cannot be used is an error')
    num_shown: int = arg(3, 'answers printed side by side', low=0)
    log_type: Literal['wandb', 'tensorboard', 'none'] = arg('none', 'tracker')


def main(config: ArenaConfig) -> int:
    """Answer, score, compare, and write table.csv and summary.json."""
    from safe_align.evaluate.match import run_arena

    return run_arena(config)


if __name__ == '__main__':
    run(ArenaConfig, main)
