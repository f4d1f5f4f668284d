"""Two policies, in a red and in a blue corner, that answer the same prompts for a judge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from safe_align.datasets.rows import prompt_name
from safe_align.evaluate.answers import answer, held_out
from safe_align.evaluate.gpt4_answers import Game, prompts_of
from safe_align.evaluate.match import CORNERS
from safe_align.evaluate.strata import categories_of
from safe_align.handoff import Run
from safe_align.models.loading import check_kind, check_length, load_tokenizer
from safe_align.online.parts import Parts
from safe_align.ownership import PARTS
from safe_align.templates import Template

if TYPE_CHECKING:
    from safe_align.evaluate.gpt4 import Gpt4Config


class Corners:
    """The policies, their templates, and the prompts.

    Raises:
        UserError: a policy or a prompt cannot be used.
    """

    def __init__(self, config: Gpt4Config) -> None:
        self.config = config
        config.place()
        trust = config.trust_remote_code
        for policy, flag in map(self._policy, CORNERS):
            check_kind(policy, 'policy', flag, trust)
            check_length(policy, config.max_length, trust)
        self.templates = [Template(load_tokenizer(*self._policy(corner), trust), config.template) for corner in CORNERS]
        specs = prompts_of(config)
        self.prompts, self.kinds = held_out(config, specs, self.templates[0]), categories_of(specs)

    def games(self, run: Run) -> list[Game]:
        """A pair of answers to each prompt.

        What a policy has answered is written down: on some devices it says other things the next time, about which the
        judge would have to be asked anew.
        """
        turns, keys = self.prompts.turns(), [int(key) for key in self.prompts.hashes]
        parts = Parts(run.directory / PARTS, run.logger.say, lambda row: (row['prompt_id'], row['corner']))
        for number, corner in enumerate(CORNERS):
            missing = [n for n, key in enumerate(keys) if (prompt_name(key), number) not in parts.found]
            if missing:
                found = answer(
                    self.config, run, self._policy(corner), self.templates[number], [turns[n] for n in missing],
                    [keys[n] for n in missing], what=f'{corner} corner answers',
                )  # fmt: skip
                parts.append(
                    {'prompt_id': prompt_name(keys[n]), 'corner': number, 'answer': one.text}
                    for n, one in zip(missing, found, strict=True)
                )
        lines = parts.lines()
        parts.journal.close()
        texts = [[json.loads(lines[prompt_name(key), n])['answer'] for n in range(len(CORNERS))] for key in keys]
        return [
            Game(one, 0, self.kinds.get(key), red, blue)
            for one, key, (red, blue) in zip(turns, keys, texts, strict=True)
        ]

    def _policy(self, corner: str) -> tuple[str, str]:
        """The policy in a corner, and the flag that says so."""
        option = f'{corner}_corner_model_name_or_path'
        return getattr(self.config, option), f'--{option}'
