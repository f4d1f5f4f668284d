"""How often a server may be asked: a distance between requests, and the pauses that the server itself asks for."""

from __future__ import annotations

import asyncio
import email.utils
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

MINUTE = 60.0  # seconds
LONGEST = 120.0  # seconds of a pause that a server can ask for: after that its requests have failed for good
LOOK = 1.0  # seconds after which somebody who waits looks whether all is over
BUSY = (429, 503)  # whose Retry-After is about all requests, not about this one alone


class Pace:
    """Turns of one process's requests to a server, retries among them.

    Args:
        per_minute: requests in a minute, at equal distances, so that no minute has more, wherever it begins; None for
            as many as come.
        clock: seconds.
        sleep: waits for so many of them.

    Attributes:
        is_over: whether no request may be sent any more; what sends one all the same is cancelled.
    """

    def __init__(
        self,
        per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.distance = MINUTE / per_minute if per_minute else 0.0
        self._clock, self._sleep, self._next = clock, sleep, -math.inf
        self.is_over: Callable[[], bool] = lambda: False

    async def turn(self) -> None:
        """Wait until the next request may be sent."""
        while (left := self._next - self._clock()) > 0:  # others may have been quicker, or the server asked for more
            self._go_on()
            await self._sleep(min(left, LOOK))
        self._go_on()
        self._next = self._clock() + self.distance

    def hold(self, seconds: float) -> None:
        """Let no request start before so many seconds have passed."""
        if seconds > 0:
            self._next = max(self._next, self._clock() + min(seconds, LONGEST))

    def _go_on(self) -> None:
        if self.is_over():
            raise asyncio.CancelledError

    @property
    def hooks(self) -> dict[str, Any]:
        """For an HTTP client: it waits before each request, and pauses where an answer says so."""

        async def before(_: Any) -> None:
            await self.turn()

        async def after(response: Any) -> None:
            if response.status_code in BUSY:
                self.hold(retry_after(response.headers))

        return {'request': [before], 'response': [after]}


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds after which a server wants to be asked again, by a number or a date (RFC 9110, 10.2.3); 0 if unsaid."""
    for name, unit in (('retry-after-ms', 1e-3), ('retry-after', 1.0)):
        try:
            seconds = float(headers.get(name, '')) * unit
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) else 0.0
    try:
        return email.utils.parsedate_to_datetime(headers.get('retry-after', '')).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0
