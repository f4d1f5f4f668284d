"""Stage: BIG-bench's JSON tasks, scored as BIG-bench scores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safe_align.config import UserError, arg, run
from safe_align.fields import PlacementFields, RunFields


@dataclass(kw_only=True, frozen=True)
class BigBenchConfig(RunFields, PlacementFields):
    """Run BIG-bench's JSON tasks: choices by their log-probabilities, answers by greedy decoding."""

    model_name_or_path: str = arg(help='policy; it reads the tasks as plain text, without a chat template')
    task_name: list[str] = arg([], 'tasks, by folder: date_understanding, or of a part hhh_alignment/honest')
    task_dir: str | None = arg(
        None, 'a clone of BIG-bench, or a folder of TASK/task.json (default: the package bigbench, if it is there)'
    )
    task_file: list[str] = arg([], "task.json files, such as one's own")
    num_shots: list[int] = arg([0], 'solved examples before a question; several numbers are run one by one', low=0)
    max_examples: int | None = arg(None, 'questions of a task, drawn from it and shared among its parts', low=1)
    max_length: int = arg(2048, 'tokens of a question and its answer; a longer question loses its beginning', low=2)
    max_new_tokens: int = arg(256, "tokens of an answer, as many as BIG-bench's own models write", low=1)
    generation_batch_size: int = arg(128, 'rows decoded together; memory depends on it, answers do not', low=1)
    generation_backend: Literal['builtin', 'hf'] = arg('builtin', "ours, or transformers' generate")
    log_type: Literal['wandb', 'tensorboard', 'none'] = arg('none', 'tracker')

    def __post_init__(self) -> None:
        """Check what fields say together.

        Raises:
            UserError: there is no task, or something is given twice, or an answer has no room.
        """
        if not self.task_name and not self.task_file:
            raise UserError('no tasks: give --task_name, or --task_file')
        for flag in ('task_name', 'task_file', 'num_shots'):
            given = getattr(self, flag)
            for n, one in enumerate(given):
                if one in given[:n]:
                    raise UserError(f'--{flag} {one}: is given twice')
        if self.max_new_tokens >= self.max_length:
            raise UserError(
                f'--max_new_tokens {self.max_new_tokens}: leaves no room for a question in --max_length '
                f'{self.max_length}'
            )


def main(config: BigBenchConfig) -> int:
    """Read the tasks, ask the policy, and write results.json, samples.jsonl and summary.json."""
    from safe_align.evaluate.tasks.run import run_bigbench

    return run_bigbench(config)


if __name__ == '__main__':
    run(BigBenchConfig, main)
