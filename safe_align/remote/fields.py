"""Options of a server that generates or judges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from safe_align.config import UserError, arg


class Server(NamedTuple):
    """An OpenAI-compatible endpoint, and how to treat it.

    Args:
        url: where its API begins, such as `http://localhost:8000/v1`.
        model: the model there; what it lists first, if None.
        api: 'completions' takes token ids or text, 'chat' takes messages and writes them by its own template.
        concurrency: requests under way at once.
        retries: of a request that met 429, 5xx, a time-out or no connection.
        timeout: seconds in which a request must be answered.
        requests_per_minute: at most, retries among them; None for as many as come.
        flag: what its flags start with, for errors to name.
    """

    url: str
    model: str | None = None
    api: Literal['completions', 'chat'] = 'chat'
    concurrency: int = 16
    retries: int = 5
    timeout: float = 600.0
    requests_per_minute: float | None = None
    flag: str = 'server'


def check_url(url: str) -> None:
    """Refuse what is no address of a server, or holds a secret, as a URL goes on record.

    Raises:
        UserError: it says which.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise UserError('a URL must hold no key or password; keys are read from OPENAI_API_KEY alone')
    if parts.scheme not in ('http', 'https') or not parts.hostname:
        raise UserError(f'{url!r:.80} is no URL such as http://localhost:8000/v1')


# what all groups of such flags have in common
_url = partial(arg, None, 'OpenAI-compatible server, such as http://localhost:8000/v1; key in OPENAI_API_KEY',
               check=check_url)  # fmt: skip
_model = partial(arg, None, 'model of the server (default: what it lists first)')
_concurrency = partial(arg, 16, 'requests under way at once', low=1, high=1000)  # connections that the client opens
_retries = partial(arg, 5, 'of a request, after 429, 5xx, a time-out or a lost connection', low=0)
_timeout = partial(arg, 600.0, 'seconds in which a request must be answered', low=0.001)


@dataclass(kw_only=True, frozen=True)
class ServerFields:
    """An OpenAI-compatible server; its key, if it wants one, is in the environment variable OPENAI_API_KEY."""

    server_url: str | None = _url()
    server_model: str | None = _model()
    server_api: Literal['completions', 'chat'] = arg(
        'completions', "prompts in this model's template, or messages for the server's own"
    )
    server_concurrency: int = _concurrency()
    server_retries: int = _retries()
    server_timeout: float = _timeout()

    def server(self) -> Server:
        """The server that is asked for.

        Raises:
            UserError: none is.
        """
        return _server(self, 'server')


@dataclass(kw_only=True, frozen=True)
class JudgeFields:
    """A judge behind an OpenAI-compatible server, with the same key."""

    judge_url: str | None = _url()
    judge_model: str | None = _model()
    judge_template: str | None = arg(
        None, 'file that asks for [[A]], [[B]] or [[C]], with the fields {prompt}, {answer_a} and {answer_b}'
    )
    judge_concurrency: int = _concurrency()
    judge_retries: int = _retries()
    judge_timeout: float = _timeout()
    judge_requests_per_minute: float | None = arg(
        None, 'at most, retries among them (default: as many as come)', low=0.001
    )

    def judge_server(self) -> Server:
        """The judge that is asked for.

        Raises:
            UserError: none is.
        """
        return _server(self, 'judge')


def _server(fields: Any, flag: str) -> Server:
    if getattr(fields, f'{flag}_url') is None:
        raise UserError(f'--{flag}_url: which server?')
    given = {name: getattr(fields, f'{flag}_{name}') for name in Server._fields if hasattr(fields, f'{flag}_{name}')}
    return Server(**given, flag=flag)
