"""Stage: a judge compares a policy's answers with a baseline's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from safe_align.config import UserError, arg, run
from safe_align.evaluate.fields import JUDGES
from safe_align.fields import PlacementFields, RunFields, datasets_arg
from safe_align.options import help_lines, listing
from safe_align.remote.fields import JudgeFields


def describe_judges() -> Iterator[str]:
    """The lines of `--help` that tell of the judges."""
    return help_lines(listing(JUDGES))


@dataclass(kw_only=True, frozen=True)
class CompareConfig(JudgeFields, RunFields, PlacementFields):
    """Have a candidate's answers compared with a baseline's, prompt by prompt, and say who wins how often."""

    samples: str = arg(help="the candidate's answers: a file, or a directory of safe_align.online.sample",
                       aliases=['file'])  # fmt: skip
    baseline: str | None = arg(None, 'answers of another policy to the same prompts, in any such file')
    datasets: list[str] | None = datasets_arg(
        None, 'data whose better answer to a prompt is the baseline, or with --baseline the reference'
    )
    candidate_key: str | None = arg(None, 'key of its answers (default: policy, output or response)')
    baseline_key: str | None = arg(
        None, 'key of the other answers (default: chosen or reference; in --baseline as the candidate)'
    )
    prompt_key: str | None = arg(None, 'key of prompts (default: prompt or instruction)', aliases=['history_key'])
    reference_key: str = arg('reference', 'key of the right answer, if rows have it beside those two')
    judge: str = arg('score_models', 'who says which answer is better', listed=describe_judges)
    reward_model_name_or_path: str | None = arg(None, 'reward model, or function:NAME')
    cost_model_name_or_path: str | None = arg(None, 'cost model, or function:NAME')
    max_comparisons: int | None = arg(None, 'compare no more, drawn by --seed', aliases=['max_comp'], low=1)
    results: str | None = arg(None, "file that runs share, to which HALOs' line of results is added",
                              aliases=['results_file'])  # fmt: skip
    max_length: int = arg(512, 'tokens of prompt and answer that a score model must be able to read', low=2)
    log_type: Literal['wandb', 'tensorboard', 'none'] = arg('none', 'tracker')

    def __post_init__(self) -> None:
        """Check that there is one baseline.

        Raises:
            UserError: the data are one, and a key of the samples is.
        """
        if self.datasets and self.baseline_key is not None and self.baseline is None:
            raise UserError(f'--baseline_key {self.baseline_key}: the baseline is that of --datasets; choose one')


def main(config: CompareConfig) -> int:
    """Compare, and write comparisons.jsonl, comparisons.csv, results.jsonl and summary.json."""
    from safe_align.evaluate.comparing import run_compare

    return run_compare(config)


if __name__ == '__main__':
    run(CompareConfig, main)
