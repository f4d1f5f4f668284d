"""A policy in conversation: what was said, its next answer, and the scores of that."""

from __future__ import annotations

from dataclasses import dataclass, field

from safe_align.engine import Engine
from safe_align.generation import stream
from safe_align.models.scorer import Conversation, Scorer
from safe_align.sampling import Sampling
from safe_align.serve.terminal import Terminal, stoppable
from safe_align.serve.text import Pieces
from safe_align.templates import Template

SHARE = 4  # an answer has room for so many-eth of --max_length at least, if it may be that long


@dataclass
class Voice:
    """A policy and its side of a conversation.

    Args:
        engine: runs the policy.
        template: its own.
        sampling: how it answers; with a maximal length.
        streams: show its answers token by token.
        scorers: by the kind of their scores; they read this template.
        turns: user, assistant, ..., assistant.
        before: `turns` without the last answer and its message.
    """

    engine: Engine
    template: Template
    sampling: Sampling
    streams: bool
    scorers: dict[str, Scorer] = field(default_factory=dict)
    turns: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """Forget what was said."""
        self.turns, self.before = [], []

    def take_back(self) -> None:
        """Forget the last answer and its message."""
        self.turns = self.before

    def answer(self, message: str, key: int, terminal: Terminal) -> Conversation | None:
        """Answer in the terminal; None if the message is too long to be answered.

        An answer that the user stops stays in the conversation as far as it came.
        """
        turns, prompt = self._fitting(message, terminal)
        if not prompt:
            self.before = self.turns
            return None
        pieces, note = Pieces(self.template), ''
        with stoppable() as check:

            def drawn(token: int) -> None:
                check()
                piece = pieces.add(token)
                if self.streams:
                    terminal.write(piece)

            try:
                with self.engine.placement.compute():
                    response = stream(self.engine.module, prompt, self.sampling, self.template.stop_ids, key, drawn)
                note = '' if response.is_finished else self._limit(len(response.ids))
            except KeyboardInterrupt:
                note = 'stopped'
        rest, text = pieces.end(), self.template.text(pieces.ids)
        self._close(terminal, rest if self.streams else text, text, note)
        self.before, self.turns = turns[:-1], [*turns, text]
        return Conversation(turns, prompt, pieces.ids, text)

    def scores(self, conversation: Conversation) -> dict[str, float]:
        """Of an answer, by kind."""
        return {kind: float(scorer([conversation])[0]) for kind, scorer in self.scorers.items()}

    def _fitting(self, message: str, terminal: Terminal) -> tuple[list[str], list[int]]:
        """The turns that leave room for an answer, and their ids; none if there is no room."""
        longest = self.sampling.max_length or 0
        room = max(1, min(self.sampling.max_new_tokens, longest // SHARE))
        turns = [*self.turns, message]
        prompt = self.template.prompt(turns)
        while len(turns) > 1 and len(prompt) > longest - room:
            turns = turns[2:]
            prompt = self.template.prompt(turns)
        if len(prompt) >= longest:
            terminal.note(f'not answered: the message has {len(prompt)} tokens, --max_length is {longest}')
            return turns, []
        if forgotten := (len(self.turns) + 1 - len(turns)) // 2:
            what = f'the oldest {forgotten} messages and answers' if forgotten > 1 else 'the oldest message and answer'
            terminal.note(f'forgotten: {what}, which no longer fit --max_length {longest}')
        return turns, prompt

    def _limit(self, length: int) -> str:
        """Which option has cut off an answer."""
        most, longest = self.sampling.max_new_tokens, self.sampling.max_length
        return f'cut off: --max_new_tokens {most}' if length == most else f'cut off: --max_length {longest}'

    @staticmethod
    def _close(terminal: Terminal, rest: str, text: str, note: str) -> None:
        """Show what is left of an answer, and what there is to say of it."""
        if text:
            terminal.line(rest)
        elif note != 'stopped':
            terminal.note('no answer')
        if note:
            terminal.note(note)
