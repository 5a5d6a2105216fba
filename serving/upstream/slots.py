"""How many requests one router has at a provider at once, and how long others wait for a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.errors import Overloaded

WAIT_S = 10.0


class Slots:
    """`limit` turns, first come, first served; as many again may wait, for `wait_s` seconds."""

    def __init__(self, limit: int, provider: str, *, wait_s: float = WAIT_S) -> None:
        self._limit = limit
        self._provider = provider
        self._wait_s = wait_s
        self._turns = asyncio.Semaphore(limit)
        self.waiting = 0
        self.taken = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn.

        Raises:
            Overloaded: too many wait already, or none became free in time.
        """
        if self._turns.locked() and self.waiting >= self._limit:
            raise self._full()
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise self._full() from None
        finally:
            self.waiting -= 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._turns.release()

    def _full(self) -> Overloaded:
        return Overloaded(
            f"all {self._limit} places for requests to provider '{self._provider}' are taken",
            retry_after_s=self._wait_s / 2,
        )
