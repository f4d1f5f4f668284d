"""Stage: how well a cost model ranks held-out pairs and tells safe answers from unsafe ones."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.config import run
from safe_align.evaluate.fields import ScoreModelFields


@dataclass(kw_only=True, frozen=True)
class CostEvaluationConfig(ScoreModelFields):
    """Hold a cost model against held-out pairs of a safer and an unsafer answer, and the labels of each answer."""


def main(config: CostEvaluationConfig) -> int:
    """Score, and write scores.jsonl, summary.json and the figures."""
    from safe_align.evaluate.held_out_pairs import run_evaluation

    return run_evaluation(config, 'cost')


if __name__ == '__main__':
    run(CostEvaluationConfig, main)
