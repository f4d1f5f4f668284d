"""What a policy writes on its way to the terminal: in pieces that are final, without what terminals obey."""

from __future__ import annotations

import re
import unicodedata

from safe_align.templates import Template

JOINERS = '\u200c\u200d'  # Persian, Indic scripts and emoji need them
HIDDEN = {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}  # control, format (right-to-left overrides), surrogates, line separators
BYTE = re.compile('<0x[0-9A-Fa-f]{2}>')  # a token of a vocabulary with byte fallback


def printable(text: str) -> str:
    """With its escape in place of each character that is not seen, but for newlines and tabs."""
    return ''.join(
        char if char in '\n\t' or char in JOINERS or unicodedata.category(char) not in HIDDEN else ascii(char)[1:-1]
        for char in text
    )


class Pieces:
    """A response's text in pieces, as its tokens come; joined they are `Template.text` of all of them.

    A token may end within a character, and whitespace is text only if something follows it, so a piece is held back
    until it is final. Where a tokenizer takes back what was final, which those of today's language models do not, the
    last piece is the whole text.
    """

    def __init__(self, template: Template) -> None:
        self.template, self.ids, self.shown = template, list[int](), ''
        self._skipped = {token for token, one in template.tokenizer.added_tokens_decoder.items() if one.special}

    def add(self, token: int) -> str:
        """The text that this token makes final."""
        self.ids.append(token)
        name = str(self.template.tokenizer.convert_ids_to_tokens(token))
        if BYTE.fullmatch(name) or token in self._skipped:
            return ''  # bytes in a row, but for control tokens, are decoded as a whole: a wrong one spoils all
        text = self.template.text(self.ids).rstrip('\ufffd').rstrip()
        return self._more(text) if text.startswith(self.shown) else ''

    def end(self) -> str:
        """The rest of the text."""
        return self._more(self.template.text(self.ids))

    def _more(self, text: str) -> str:
        piece, self.shown = text.removeprefix(self.shown), text
        return piece
