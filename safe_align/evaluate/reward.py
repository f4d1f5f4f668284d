"""Stage: how well a reward model ranks held-out pairs, and how far its scores can be taken at their word."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.config import run
from safe_align.evaluate.fields import ScoreModelFields


@dataclass(kw_only=True, frozen=True)
class RewardEvaluationConfig(ScoreModelFields):
    """Hold a reward model against held-out pairs of a better and a worse answer."""


def main(config: RewardEvaluationConfig) -> int:
    """Score, and write scores.jsonl, summary.json and the figures."""
    from safe_align.evaluate.held_out_pairs import run_evaluation

    return run_evaluation(config, 'reward')


if __name__ == '__main__':
    run(RewardEvaluationConfig, main)
