"""Finds an engine that is stuck: it lives, requests wait, and nothing comes any more.

A core that hangs in a kernel, or a queue that leaks have filled, does not die, so no other check
sees it. When requests wait and the engine has made no step for a while, it has to prove itself with
a request of one token. A long prompt is no reason: it makes steps, and the proof runs beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from serving.engine.interface import Engine
from serving.observability.logs import Log


class Watchdog:
    """Watches one engine; `stuck` is set once it has failed to prove itself.

    Args:
        in_flight: how many calls routers have running here.
        quiet_s: without a step for so long, while requests wait, the engine is asked for a proof.
        proof_s: how long the proof may take.
    """

    def __init__(
        self,
        engine: Engine,
        in_flight: Callable[[], int],
        *,
        quiet_s: float,
        proof_s: float,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._in_flight = in_flight
        self._quiet_s = quiet_s
        self._proof_s = proof_s
        self._log = log
        self._clock = clock
        self._sleep = sleep
        self.stuck = asyncio.Event()

    async def run(self) -> None:
        """Watch until the engine is stuck."""
        seen, since = self._engine.steps(), self._clock()
        while True:
            await self._sleep(self._quiet_s / 10)
            steps = self._engine.steps()
            waits = self._in_flight() or self._engine.held()
            if steps != seen or not waits:
                seen, since = steps, self._clock()
            elif self._clock() - since >= self._quiet_s:
                self._log.warning(
                    "engine_quiet", in_flight=self._in_flight(), held=self._engine.held()
                )
                if (reason := await self._failure()) is not None:
                    self._log.error("engine_stuck", reason=reason)
                    self.stuck.set()
                    return
                seen, since = self._engine.steps(), self._clock()

    async def _failure(self) -> str | None:
        """Why the engine has not proved itself; None if it has."""
        proof = asyncio.ensure_future(self._engine.prove())
        timer = asyncio.ensure_future(self._sleep(self._proof_s))
        try:
            await asyncio.wait({proof, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not proof.done():
                return f"a request of one token had no answer after {self._proof_s:g} s"
            error = proof.exception()
            return None if error is None else f"{type(error).__name__}: {error}"
        finally:
            # Not awaited: what hangs may not even be cancelled.
            proof.cancel()
            timer.cancel()
