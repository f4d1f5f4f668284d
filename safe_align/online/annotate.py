"""Stage: feedback on responses, from responses.jsonl to feedback.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safe_align.config import arg, run
from safe_align.fields import PlacementFields, RunFields
from safe_align.online.annotate_fields import AnnotatorFields
from safe_align.remote.fields import JudgeFields


@dataclass(kw_only=True, frozen=True)
class AnnotateConfig(AnnotatorFields, JudgeFields, RunFields, PlacementFields):
    """Say how good responses are, and write feedback.jsonl: a row a response, a pair, or a single answer."""

    responses: list[str] = arg(help='directories of the stage that drew them, or files of such rows')
    feedback_type: Literal['scalar', 'pairwise', 'pointwise'] = arg(
        'pairwise', 'each response with its score, pairs, or single answers that are desirable or not'
    )
    max_length: int = arg(
        512, 'tokens of prompt and response together, which a score model must be able to read', low=2
    )
    log_type: Literal['wandb', 'tensorboard', 'none'] = arg('none', 'tracker')


def main(config: AnnotateConfig) -> int:
    """Annotate, and write feedback.jsonl."""
    from safe_align.online.annotation_run import run_annotate

    return run_annotate(config)


if __name__ == '__main__':
    run(AnnotateConfig, main)
