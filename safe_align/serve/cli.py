"""Stage: talk to a policy in the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from safe_align.config import arg, run
from safe_align.serve.fields import ChatFields


@dataclass(kw_only=True, frozen=True)
class ChatConfig(ChatFields):
    """Talk to a policy in the terminal, and see the reward and cost of each answer; /help lists the commands."""

    model_name_or_path: str = arg(help='policy to talk to')


def main(config: ChatConfig) -> int:
    """Talk until the user ends it."""
    from safe_align.serve.session import run_session

    return run_session(config, {'': 'model_name_or_path'})


if __name__ == '__main__':
    run(ChatConfig, main)
