"""Why requests to a server failed for good, each reason in one line that never says the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safe_align.remote.answers import decode
from safe_align.remote.fields import Server

SHOWN = 80  # characters of what a server says: it may be long, and hold anything
NO_KEY = 'none'  # servers on one's own machine want none, the client does


class Failures:
    """The failures of one server.

    Args:
        server: whose flags are named.
        key: what must not be shown; `NO_KEY` if there is none.
    """

    def __init__(self, server: Server, key: str) -> None:
        self.server, self._key = server, key

    @property
    def where(self) -> str:
        """The flag that says which server it is."""
        return f'--{self.server.flag}_url {self.server.url}'

    def reason(self, error: Any) -> str:
        """Of an `openai.APIError` other than 404."""
        from openai import APIStatusError, APITimeoutError

        times = f', {self.server.retries + 1} times' if self.server.retries else ''
        if isinstance(error, APITimeoutError):
            flag = f'--{self.server.flag}_timeout'
            return f'{self.where}: no answer within {self.server.timeout:g} s ({flag}){times}'
        if not isinstance(error, APIStatusError):
            cause = error.__cause__ or error
            return f'{self.where}: cannot be reached{times}: {self.shown(str(cause) or type(cause).__name__)}'
        code, told = error.status_code, self._told(error)
        if code in (401, 403):
            key = 'the key in OPENAI_API_KEY' if self._key != NO_KEY else 'requests without a key; set OPENAI_API_KEY'
            return f'{self.where}: refuses {key} ({code}): {told}'
        if code == 429:
            limits = f'--{self.server.flag}_concurrency' + ' or --judge_requests_per_minute' * (
                self.server.flag == 'judge'
            )
            return f'{self.where}: too many requests (429){times}; lower {limits}: {told}'
        return f'{self.where}: answers {code}{times * (code >= 500)}: {told}'

    def missing(self, error: Any, model: str | None, listed: Sequence[str]) -> str:
        """Of a 404: the model is not among those that are listed, or the API is not there."""
        if not listed or model in listed:
            return f'{self.where}: has no {self.server.api} API there (404): {self._told(error)}'
        known = ', '.join(listed[:10])
        return f'--{self.server.flag}_model {model}: {self.server.url} does not have it; it has: {known}'

    def shown(self, text: str) -> str:
        """A part of what a server says, which may say the key."""
        text = text if self._key == NO_KEY else text.replace(self._key, '***')
        return repr(' '.join(text[: 10 * SHOWN].split())[:SHOWN])

    def _told(self, error: Any) -> str:
        return self.shown(_message(error.response.text))


def _message(body: str) -> str:
    """The sentence in an error's JSON; all of it, if it is another."""
    try:
        value = decode(body)
    except ValueError:
        return body
    inner = value.get('error') or value.get('detail') or value.get('message')
    inner = inner.get('message') if isinstance(inner, dict) else inner
    return inner if isinstance(inner, str) else body
