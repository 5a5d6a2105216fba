"""How many requests one router has at a provider at once, and whose turn is next.

Turns are fair between accounts as an engine's are (`serving/engine/fair_queue.py`): by the tokens
of prompts, as far as their length says, and of completions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.engine.fair_queue import Claim, FairQueue, Flow
from serving.engine.interface import Tally
from serving.errors import Overloaded
from serving.wire.messages import Standing

WAIT_S = 10.0


class Slots:
    """`limit` turns; as many requests again may wait, for `wait_s` seconds each."""

    def __init__(self, limit: int, provider: str, *, wait_s: float = WAIT_S) -> None:
        self._limit = limit
        self._provider = provider
        self._wait_s = wait_s
        self._queue = FairQueue()
        self.taken = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a turn."""
        return len(self._queue)

    @asynccontextmanager
    async def turn(self, standing: Standing, prompt: int, tally: Tally) -> AsyncIterator[None]:
        """Hold a turn.

        Args:
            prompt: about how many tokens the prompt has.
            tally: gets how long the request waited, and says in the end what it has written.

        Raises:
            Overloaded: too many wait already, none became free in time, or others have fewer
                requests that wait.
        """
        flow = Flow(standing.owner, standing.batch)
        claim = Claim("", flow, standing.weight, prompt)
        self._queue.arrive(flow)
        loop = asyncio.get_running_loop()
        since = loop.time()
        if self.taken < self._limit and not self._queue:
            self._grant(claim)
        else:
            await self._wait(claim)
        tally.queue_s = loop.time() - since
        try:
            yield
        finally:
            self._queue.charge_completion(claim, tally.completion_tokens)
            self._give_back()

    async def _wait(self, claim: Claim) -> None:
        if len(self._queue) >= self._limit:
            other = self._queue.newest_of_longest(claim.flow)
            if other is None:
                raise self._full()
            self._queue.remove(other)
            other.waiter.set_exception(self._full())
        claim.waiter = waiter = asyncio.get_running_loop().create_future()
        self._queue.push(claim)
        try:
            async with asyncio.timeout(self._wait_s):
                await waiter
        except TimeoutError:
            self._leave(claim)
            raise self._full() from None
        except BaseException:
            self._leave(claim)
            raise

    def _leave(self, claim: Claim) -> None:
        """A claim is given up, perhaps in the moment of its turn."""
        if claim.waits:
            self._queue.remove(claim)
        elif not claim.waiter.cancelled() and claim.waiter.exception() is None:
            self._give_back()

    def _grant(self, claim: Claim) -> None:
        self._queue.charge_prompt(claim)
        self.taken += 1

    def _give_back(self) -> None:
        self.taken -= 1
        while self.taken < self._limit and (claim := next(self._queue.candidates(), None)):
            self._queue.remove(claim)
            if not claim.waiter.done():  # else it was cancelled in this turn of the event loop
                self._grant(claim)
                claim.waiter.set_result(None)

    def _full(self) -> Overloaded:
        return Overloaded(
            f"all {self._limit} places for requests to provider '{self._provider}' are taken",
            retry_after_s=self._wait_s / 2,
        )
