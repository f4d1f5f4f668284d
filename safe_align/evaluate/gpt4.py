"""Stage: a judge behind an OpenAI-compatible server says which of two policies answers better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safe_align.config import UserError, arg, run
from safe_align.evaluate.fields import AnswerFields
from safe_align.fields import datasets_arg
from safe_align.remote.fields import JudgeFields

CORNERS = ('red_corner_model_name_or_path', 'blue_corner_model_name_or_path')


@dataclass(kw_only=True, frozen=True)
class Gpt4Config(AnswerFields, JudgeFields):
    """Let a judge compare the answers of two policies, pair by pair and in both orders."""

    red_corner_model_name_or_path: str | None = arg(None, 'policy in the red corner, the one to beat')
    blue_corner_model_name_or_path: str | None = arg(None, 'policy in the blue corner')
    responses: list[str] = arg(
        [], "answers to read in place of policies: red's and blue's responses.jsonl, or an arena's table.csv"
    )
    datasets: list[str] = datasets_arg(
        [], "prompts, with their category where a jsonl row has one (default: safe-rlhf's 83 problems)"
    )
    compare: Literal['overall', 'helpfulness', 'harmlessness'] = arg('overall', 'what the judge is asked about')
    judge_prices: list[float] = arg([], 'IN OUT, of a million tokens, to show what was paid', low=0, high=1e6)
    max_length: int = arg(2048, 'tokens of prompt and response together', low=2)
    temperature: float = arg(0.0, 'logits are divided by it; 0 takes the likeliest token', low=0)

    def __post_init__(self) -> None:
        """Check what fields say together.

        Raises:
            UserError: there are no two sides, or too many; no judge, or two questions to it; or half a price.
        """
        for corner in CORNERS:
            if self.responses and getattr(self, corner) is not None:
                raise UserError(f'--{corner} and --responses: choose one')
            if not self.responses and getattr(self, corner) is None:
                raise UserError(f'--{corner}: is required, or --responses with answers to read')
        if len(self.responses) > 2:
            raise UserError(f'--responses: red and blue, or one arena, were expected; {len(self.responses)} are given')
        if self.judge_url is None:
            raise UserError('--judge_url: which server is the judge?')
        if self.judge_template is not None and self.compare != 'overall':
            raise UserError(f'--compare {self.compare}: --judge_template asks its own question; leave one out')
        if len(self.judge_prices) not in (0, 2):
            given = ' '.join(f'{price:g}' for price in self.judge_prices)
            raise UserError(f'--judge_prices {given}: two were expected, of a million tokens in and of a million out')


def main(config: Gpt4Config) -> int:
    """Answer or read, ask the judge, and write eval.jsonl and summary.json."""
    from safe_align.evaluate.gpt4_run import run_gpt4

    return run_gpt4(config)


if __name__ == '__main__':
    run(Gpt4Config, main)
