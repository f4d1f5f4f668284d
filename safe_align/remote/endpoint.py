"""A client of an OpenAI-compatible server: many requests at once, each answer handed over as soon as it is there."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from safe_align.config import UserError
from safe_align.remote.answers import Answer, decode, read
from safe_align.remote.failures import NO_KEY, Failures
from safe_align.remote.fields import Server, check_url
from safe_align.remote.pace import Pace

GRACE = 5.0  # seconds that requests under way have to end after another one failed: they are paid for
Request = Callable[[frozenset[str]], dict[str, Any]]  # from names that the server refuses to what is sent
Each = Callable[[int, Answer], object]


@dataclass
class Usage:
    """What a run has paid for."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, prompt_tokens: int, completion_tokens: int) -> None:
        """One answer more."""
        self.requests += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens


class Endpoint:
    """A server, and what was paid to it; the key is that of OPENAI_API_KEY, and stays in this process.

    Args:
        server: which, and how to treat it.
        is_checked: whether its model is known to be there, and need not be asked for.

    Raises:
        UserError: the package `openai` is missing, the address is no URL, or the key no key.
    """

    def __init__(self, server: Server, is_checked: bool = False) -> None:
        check_url(server.url)
        self.server, self.usage = server, Usage()
        self.refused: frozenset[str] = frozenset()  # names that this server has refused so far
        self._model = server.model if is_checked else None
        self._key = os.environ.get('OPENAI_API_KEY', '').strip() or NO_KEY
        if not re.fullmatch('[!-~]+', self._key):
            raise UserError('OPENAI_API_KEY: holds characters that no key has')
        self._failures, self.pace = Failures(server, self._key), Pace(server.requests_per_minute)
        try:
            import openai  # noqa: F401
        except ImportError:
            raise UserError(f"{self._failures.where}: needs openai; pip install 'safe_align[server]'") from None

    @property
    def model(self) -> str:
        """The name of the model that answers; the server is asked for it once.

        Raises:
            UserError: the server cannot be reached, refuses the key, or lists no model.
        """
        if self._model is None:
            self._model = asyncio.run(self._find_model())
        return self._model

    def go_on_from(self, models: Collection[str]) -> None:
        """Refuse to add to what other models have answered.

        Raises:
            UserError: it names them; or the server cannot be asked which model it has.
        """
        if others := set(models) - {self.model}:
            raise UserError(
                f'--{self.server.flag}_model {self.model}: what has been answered so far is of {min(others)}; '
                'have that one served, or start anew with --overwrite'
            )

    def ask(
        self, requests: Iterable[Request], each: Each, optional: Mapping[str, str] | None = None,
        refusals: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Send requests, several at once; each answer is handed over as it comes, with its request's number.

        Args:
            requests: made when their turn comes, without 'model'.
            each: called in this thread, in any order; while it runs nothing else does.
            optional: names in a request that a server may not know, and patterns of the message that says so. A
                request that is refused with such a message is made once more without.
            refusals: reasons for which a server may refuse what stands in a request, and patterns of the message
                that says so. Such a request has an answer without text that has the reason.

        Raises:
            UserError: a request failed for good, with a reason in one line. Answers that had come by then, or came
                within seconds, have been handed over.
        """
        _ = self.model
        asyncio.run(self._ask_all(enumerate(requests), each, optional or {}, refusals or {}))

    def _client(self, retries: int, hooks: dict[str, Any] | None = None) -> Any:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        url = self.server.url.rstrip('/')
        url = url if urlsplit(url).path else f'{url}/v1'
        return AsyncOpenAI(
            base_url=url, api_key=self._key, max_retries=retries, timeout=self.server.timeout,
            http_client=DefaultAsyncHttpxClient(event_hooks=hooks or {}),
        )  # fmt: skip

    async def _find_model(self) -> str:
        from openai import APIError, APIStatusError

        named = self.server.model
        async with self._client(min(1, self.server.retries)) as client:
            try:
                listed = await self._listed(client)
            except APIError as error:
                code = error.status_code if isinstance(error, APIStatusError) else None
                if code in (None, 401, 403) or (named is None and code != 404):
                    raise UserError(await self._reason(client, error)) from error
                listed = []  # not every server can list its models
        if named is None and not listed:
            raise UserError(f'{self._failures.where}: lists no model; name one by --{self.server.flag}_model')
        return named or listed[0]

    async def _listed(self, client: Any) -> list[str]:
        body = (await client.models.with_raw_response.list()).text
        try:
            names = [one['id'] for one in decode(body)['data']]
            if all(isinstance(name, str) for name in names):
                return names
            raise ValueError
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f'{self._failures.where}: answers no list of models: {self._failures.shown(body)}'
            ) from None

    async def _ask_all(
        self,
        requests: Iterator[tuple[int, Request]],
        each: Callable[[int, Answer], object],
        optional: Mapping[str, str],
        refusals: Mapping[str, str],
    ) -> None:
        async with self._client(self.server.retries, self.pace.hooks) as client:
            failed = False

            async def work() -> None:
                nonlocal failed
                try:
                    for number, request in requests:
                        answer = await self._answer(client, request, optional, refusals)
                        self.usage.count(answer.prompt_tokens, answer.completion_tokens)
                        each(number, answer)
                        if failed:
                            return
                except BaseException:
                    failed = True
                    raise

            tasks = [asyncio.ensure_future(work()) for _ in range(self.server.concurrency)]
            try:
                done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                if waiting:
                    await asyncio.wait(waiting, timeout=GRACE)
                await asyncio.gather(*done)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(
        self, client: Any, request: Request, optional: Mapping[str, str], refusals: Mapping[str, str]
    ) -> Answer:
        from openai import APIError, APIStatusError

        create = client.completions if self.server.api == 'completions' else client.chat.completions
        named = 'prompt' if self.server.api == 'completions' else 'messages'
        while True:
            sent, refused = request(self.refused), self.refused
            content = {named: sent.pop(named), 'model': self._model, 'extra_body': sent}
            try:
                body = (await create.with_raw_response.create(**content)).text
                return read(body, self.server.api)
            except APIStatusError as error:
                told = error.response.text if error.status_code in (400, 403, 413, 422) else ''
                for reason, pattern in refusals.items():
                    if re.search(pattern, told):
                        return Answer('', False, None, None, None, 0, 0, reason)
                self.refused |= {name for name, pattern in optional.items() if re.search(pattern, told)}
                if self.refused == refused:
                    raise UserError(await self._reason(client, error)) from error
            except APIError as error:
                raise UserError(await self._reason(client, error)) from error
            except ValueError as error:
                raise UserError(f'{self._failures.where}: answers {error}: {self._failures.shown(body)}') from None

    async def _reason(self, client: Any, error: Any) -> str:
        """Why a request failed for good, in one line."""
        from openai import APIError, APIStatusError

        if not isinstance(error, APIStatusError) or error.status_code != 404:
            return self._failures.reason(error)
        try:
            listed = await self._listed(client)
        except (APIError, UserError):
            listed = []
        return self._failures.missing(error, self._model, listed)
