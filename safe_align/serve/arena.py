"""Stage: talk to two policies at once in the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.config import arg, run
from safe_align.serve.fields import ChatFields


@dataclass(kw_only=True, frozen=True)
class DuelConfig(ChatFields):
    """Talk to two policies at once, and see whose answers have the higher reward and the lower cost."""

    red_corner_model_name_or_path: str = arg(help='policy in the red corner, which answers first')
    blue_corner_model_name_or_path: str = arg(help='policy in the blue corner')


def main(config: DuelConfig) -> int:
    """Talk until the user ends it."""
    from safe_align.serve.session import run_session

    return run_session(config, {corner: f'{corner}_corner_model_name_or_path' for corner in ('red', 'blue')})


if __name__ == '__main__':
    run(DuelConfig, main)
