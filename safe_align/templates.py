"""Conversations as token ids; the only place that knows a chat template.

The prompt's ids and a response's ids are made apart and joined as ids, so where a response starts and ends is a
position, whatever the tokenizer would have merged across the boundary.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from safe_align.config import UserError

BEGIN, USER, ASSISTANT = 'BEGINNING OF CONVERSATION: ', 'USER: {} ', 'ASSISTANT:'
BOS = '{{ bos_token }}'
SAFE_RLHF = (  # the same for whoever opens a tokenizer: a chat template, in Jinja
    f"{{{{ '{BEGIN}' }}}}{{% for message in messages %}}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT:' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only turns of user and assistant are known here') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MARKS = 0x108000  # characters for private use, beyond those of icon fonts: they stand for control tokens as text


class Span(NamedTuple):
    """A run of ids that is either context or a response to learn."""

    ids: list[int]
    is_response: bool


def turns_of(text: str | Sequence[str]) -> list[str]:
    """A prompt as turns user, assistant, ..., user.

    Raises:
        ValueError: the number of turns is even, so it does not end with the user's.
    """
    turns = [text] if isinstance(text, str) else list(text)
    if len(turns) % 2 == 0:
        raise ValueError('a prompt has an odd number of turns: user, assistant, ..., user')
    return turns


def fingerprint_of(tokenizer: Any) -> str:
    """A hash of what a tokenizer does to text."""
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Template:
    """How one tokenizer writes a conversation.

    Args:
        tokenizer: a `transformers` tokenizer.
        kind: 'chat', the tokenizer's own chat template; 'safe-rlhf', its conversation format; 'auto', the first if
            the tokenizer has one, else the second.

    Attributes:
        tokenizer: the same, with what is written here as its chat template. It is to be saved with what is trained, so
            that whoever opens that writes the same.

    Raises:
        UserError: the tokenizer has no chat template, or no token that ends a response.
    """

    def __init__(self, tokenizer: Any, kind: str = 'auto') -> None:
        self.tokenizer = tokenizer
        has_template = bool(getattr(tokenizer, 'chat_template', None))
        if kind == 'chat' and not has_template:
            raise UserError('--template chat: this tokenizer has no chat template; use --template safe-rlhf')
        is_known = has_template and str(tokenizer.chat_template).removeprefix(BOS) == SAFE_RLHF
        self.is_chat = has_template and not is_known and kind != 'safe-rlhf'
        if tokenizer.eos_token_id is None:
            raise UserError('the tokenizer has no end-of-sequence token, so the end of a response cannot be learned')
        written = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._controls = sorted(written | set(tokenizer.all_special_tokens))
        self.end_id = self._end_of_turn() if self.is_chat else tokenizer.eos_token_id
        self.stop_ids = sorted({self.end_id, tokenizer.eos_token_id})
        self._bos = self._leading_bos()
        if not self.is_chat:
            self.tokenizer = copy.copy(tokenizer)
            self.tokenizer.chat_template = BOS * bool(self._bos) + SAFE_RLHF

    @cached_property
    def fingerprint(self) -> str:
        """`fingerprint_of` the tokenizer."""
        return fingerprint_of(self.tokenizer)

    @property
    def hash(self) -> str:
        """A hash of how this template writes a conversation of three turns."""
        ids = self.prompt(['a', 'b', 'c']) + self.response('d')
        return hashlib.blake2b(repr((self._text(['a', 'b', 'c']), ids)).encode(), digest_size=8).hexdigest()

    def prompt(self, turns: Sequence[str]) -> list[int]:
        """Ids of the conversation up to where the assistant answers; nothing in a turn reads as a control token."""
        return self._bos + self._ids(self._text(self._marked(turns)))

    def prompt_text(self, turns: Sequence[str]) -> str:
        """The same as text, for whoever makes ids of it with this tokenizer, and adds what it adds to any text.

        Unlike in `prompt`, a control token that somebody has written in a turn reads as one.
        """
        text, bos = self._text(turns), self.tokenizer.bos_token
        adds_bos = bos is not None and self.tokenizer('a')['input_ids'][:1] == [self.tokenizer.bos_token_id]
        return text.removeprefix(bos) if adds_bos else text

    def response(self, text: str) -> list[int]:
        """Ids of an answer and of the token that ends it; nothing in the text reads as a control token."""
        return [*self._plain_ids(text), self.end_id]

    def ended(self, ids: Sequence[int]) -> list[int]:
        """A drawn response with a token that ends it, if it was cut off before one."""
        return [*ids] if ids and ids[-1] in self.stop_ids else [*ids, self.end_id]

    def dialogue(self, turns: Sequence[str]) -> list[Span]:
        """A whole conversation, every assistant turn a response; context where the template rewrites its history."""
        spans: list[Span] = []
        before, marked = '', self._marked(turns)
        for number in range(1, len(turns), 2):
            text = self._text(marked[:number])
            if not text.startswith(before):
                spans, before = [], ''
            ids = self._ids(text[len(before) :])
            if not spans:
                ids = self._bos + ids
            elif ids and ids[0] == self.end_id:
                ids = ids[1:]  # the response before has brought it
            spans += [Span(ids, False), Span(self.response(turns[number]), True)]
            before = text + marked[number]
        return spans

    def text(self, ids: Sequence[int]) -> str:
        """A response as text, without control tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _text(self, turns: Sequence[str]) -> str:
        if self.is_chat:
            messages = messages_of(turns)
            return self._chat(messages, add_generation_prompt=True)
        parts = [
            ASSISTANT + turn + self.tokenizer.eos_token if number % 2 else USER.format(turn)
            for number, turn in enumerate(turns)
        ]
        return BEGIN + ''.join(parts) + ASSISTANT

    def _chat(self, messages: list[dict[str, str]], **options: Any) -> str:
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except Exception as error:  # a template is a program of whoever made the tokenizer
            raise UserError(f"the tokenizer's chat template fails: {error}; --template safe-rlhf needs none") from error

    def _marked(self, turns: Sequence[str]) -> list[str]:
        """The turns with each control token in them as a character of its own, which `_ids` reads as that text."""
        marked = []
        for turn in turns:
            for number, token in enumerate(self._controls):
                turn = turn.replace(token, chr(MARKS + number)) if token in turn else turn
            marked.append(turn)
        return marked

    def _ids(self, text: str) -> list[int]:
        last = chr(MARKS + len(self._controls) - 1)
        plain, *rest = re.split(f'([{chr(MARKS)}-{last}])', text)
        ids = list(self.tokenizer(plain, add_special_tokens=False)['input_ids'])
        for mark, piece in zip(rest[::2], rest[1::2], strict=True):
            ids += self._plain_ids(self._controls[ord(mark) - MARKS])
            ids += self.tokenizer(piece, add_special_tokens=False)['input_ids']
        return ids

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)['input_ids'])

    def _leading_bos(self) -> list[int]:
        """The begin-of-sequence token, where the tokenizer writes one and the chat template does not."""
        bos = self.tokenizer.bos_token_id
        if self.is_chat or bos is None or self.tokenizer('a')['input_ids'][:1] != [bos]:
            return []
        return [bos]

    def _end_of_turn(self) -> int:
        text = self._chat(messages_of(['a', 'b0b']))
        after = self._ids(text.rpartition('b0b')[2])
        special = set(self.tokenizer.all_special_ids)
        return after[0] if after and after[0] in special else self.tokenizer.eos_token_id


def messages_of(turns: Sequence[str]) -> list[dict[str, str]]:
    """Turns as messages, the user's first."""
    return [{'role': 'assistant' if number % 2 else 'user', 'content': turn} for number, turn in enumerate(turns)]
