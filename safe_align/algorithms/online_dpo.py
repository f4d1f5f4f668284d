"""Stage: preference learning from the policy's own responses, DPO or any other loss."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.algorithms.preference_fields import PreferenceFields
from safe_align.algorithms.rl_fields import RoundFields, SamplingFields
from safe_align.config import UserError, arg, run
from safe_align.fields import DataFields, LoopFields, LoraFields, PlacementFields, RunFields
from safe_align.online.annotate_fields import AnnotatorFields
from safe_align.online.sampler_fields import SamplerFields
from safe_align.remote.fields import JudgeFields


@dataclass(kw_only=True, frozen=True)
class OnlineDPOConfig(
    PreferenceFields, AnnotatorFields, JudgeFields, RoundFields, RunFields, PlacementFields, DataFields, SamplerFields,
    SamplingFields, LoopFields, LoraFields,
):  # fmt: skip
    """Train a policy on feedback on its own responses: each round draws, annotates, reweights and learns."""

    renew_reference: int | None = arg(
        None, 'rounds after which the reference becomes the policy as it is then (default: it stays)', low=1
    )

    def __post_init__(self) -> None:
        """Check what fields say together.

        Raises:
            UserError: two of them contradict each other.
        """
        self.check_lora()
        self.check_sampling(self.max_length)
        if self.renew_reference and self.load_in_4bit:
            raise UserError('--renew_reference: weights in 4 bits cannot be renewed; leave --load_in_4bit out')


def main(config: OnlineDPOConfig) -> int:
    """Train, and write a policy directory."""
    from safe_align.algorithms.online_stage import run_online

    return run_online(config)


if __name__ == '__main__':
    run(OnlineDPOConfig, main)
