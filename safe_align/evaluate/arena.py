"""Stage: two policies answer the same held-out prompts; a reward and a cost model compare the answers."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from safe_align.config import arg, run
from safe_align.evaluate.fields import AnswerFields
from safe_align.fields import datasets_arg


@dataclass(kw_only=True, frozen=True)
class ArenaConfig(AnswerFields):
    """Let two policies answer the same prompts, and compare reward and cost of the answers, prompt by prompt."""

    red_corner_model_name_or_path: str = arg(help='policy in the red corner, the one to beat')
    blue_corner_model_name_or_path: str = arg(help='policy in the blue corner')
    reward_model_name_or_path: str = arg(help='reward model, or function:NAME')
    cost_model_name_or_path: str = arg(help='cost model, or function:NAME')
    datasets: list[str] = datasets_arg(MISSING, 'prompts that neither policy was trained on')
    num_return_sequences: int = arg(1, 'responses of each policy to a prompt; the prompt is the unit', low=1)
    num_shown: int = arg(3, 'answers printed side by side', low=0)


def main(config: ArenaConfig) -> int:
    """Answer, score, compare, and write table.csv and summary.json."""
    from safe_align.evaluate.match import run_arena

    return run_arena(config)


if __name__ == '__main__':
    run(ArenaConfig, main)
