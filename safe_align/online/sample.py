"""Stage: responses of a policy to prompts, drawn by a sampler."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Literal

from safe_align.config import UserError, arg, run
from safe_align.evaluate.fields import AnswerFields
from safe_align.fields import datasets_arg
from safe_align.online.sampler_fields import SamplerFields
from safe_align.remote.fields import ServerFields


@dataclass(kw_only=True, frozen=True)
class SampleConfig(SamplerFields, AnswerFields, ServerFields):
    """Draw responses to prompts, and write responses.jsonl, a row a response."""

    model_name_or_path: str = arg(help='policy; with a server, its tokenizer and template write the prompts')
    ref_model_name_or_path: str | None = arg(None, 'reference, for samplers that draw from it')
    datasets: list[str] = datasets_arg(MISSING, 'prompts', aliases=['train_datasets'])
    reward_model_name_or_path: str | None = arg(None, 'what best_of_n chooses by: a reward model, or function:NAME')
    iteration: int = arg(0, 'which time these prompts are answered; each time other responses are drawn', low=0)
    generation_backend: Literal['builtin', 'hf', 'server'] = arg(  # type: ignore[assignment]  # one more than others
        'builtin', "ours, transformers' generate, or a server that has the policy"
    )
    server_log_probs: Literal['required', 'none'] = arg(
        'required', 'whether responses of a server must come with log-probabilities'
    )

    def __post_init__(self) -> None:
        """Check what fields say together.

        Raises:
            UserError: a server is named and not asked, or the other way round.
        """
        if self.generation_backend == 'server' and self.server_url is None:
            raise UserError('--generation_backend server: needs --server_url')
        if self.generation_backend != 'server' and self.server_url is not None:
            raise UserError(f'--server_url: --generation_backend {self.generation_backend} asks none; leave it out')


def main(config: SampleConfig) -> int:
    """Draw, and write responses.jsonl."""
    from safe_align.online.sampling_run import run_sample

    return run_sample(config)


if __name__ == '__main__':
    run(SampleConfig, main)
