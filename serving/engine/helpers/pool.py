"""A bounded number of helpers, each with a deadline and a limit on its memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serving.engine.helpers.helper import Helper, HelperEnded
from serving.engine.helpers.nursery import Nursery
from serving.errors import InvalidRequest, Overloaded

# How often a running job is looked at.
LOOK_S = 0.05
# A job whose caller has left may end within this time; then its helper is killed. A helper that is
# ready costs less than a new one.
GRACE_S = 0.5


class Helpers:
    """A bounded number of helpers, which are started when they are needed.

    Args:
        most: helpers at a time.
        seconds: of one job, from its start to its end.
        memory_bytes: that a helper may take for a job.
        waiting: jobs that may wait for a helper.
    """

    def __init__(
        self,
        nursery: Nursery,
        *,
        most: int,
        seconds: float,
        memory_bytes: int,
        waiting: int = 256,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._nursery = nursery
        self._seconds = seconds
        self._memory = memory_bytes
        self._free = asyncio.Semaphore(most)
        self._most_waiting = waiting
        self._waiting = 0
        self._idle: list[Helper] = []
        self._leftover: set[asyncio.Task[None]] = set()
        self._clock = clock

    async def run(self, job: bytes) -> bytes:
        """What the work of a helper makes of `job`. Cancelling this ends the work.

        Raises:
            InvalidRequest: it takes too long or too much memory, or it ends the helper.
            Overloaded: too many jobs wait.
        """
        if self._waiting >= self._most_waiting:
            raise Overloaded("too many large requests wait to be prepared", retry_after_s=1.0)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            helper = self._idle.pop() if self._idle else await self._nursery.helper()
        except HelperEnded as error:
            self._free.release()
            raise Overloaded(f"no helper process can be started: {error}") from None
        except BaseException:
            self._free.release()
            raise
        asking = asyncio.ensure_future(helper.ask(job))
        try:
            return await self._watch(helper, asking)
        finally:
            self._return(helper, asking)

    async def _watch(self, helper: Helper, asking: asyncio.Future[bytes]) -> bytes:
        clock = self._clock or asyncio.get_running_loop().time
        deadline = clock() + self._seconds
        while not asking.done():
            await asyncio.wait({asking}, timeout=LOOK_S)
            if asking.done():
                break
            if clock() > deadline:
                helper.kill()
                raise InvalidRequest(
                    f"this request takes longer than {self._seconds:g} s to prepare (its JSON, "
                    "chat template, tokens and grammar together); make it smaller"
                )
            if helper.grown > self._memory:
                helper.kill()
                raise InvalidRequest(
                    f"this request takes more than {self._memory >> 20} MiB to prepare (its JSON, "
                    "chat template, tokens and grammar together); make it smaller"
                )
        try:
            return asking.result()
        except HelperEnded:
            helper.kill()
            raise InvalidRequest(
                "this request cannot be prepared: the process that did so ended; make it smaller"
            ) from None

    def _return(self, helper: Helper, asking: asyncio.Future[bytes]) -> None:
        """Make way for the next job, now or when the job that was left has ended."""
        if asking.done() and not asking.cancelled() and asking.exception() is None:
            self._put(helper)
            return
        if helper.killed:
            asking.cancel()
            self._free.release()
            return
        task = asyncio.ensure_future(self._let_end(helper, asking))
        self._leftover.add(task)
        task.add_done_callback(self._leftover.discard)

    async def _let_end(self, helper: Helper, asking: asyncio.Future[bytes]) -> None:
        await asyncio.wait({asking}, timeout=GRACE_S)
        if asking.done() and not asking.cancelled() and asking.exception() is None:
            self._put(helper)
            return
        asking.cancel()
        helper.kill()
        self._free.release()

    def _put(self, helper: Helper) -> None:
        # What a job has left behind is not carried along for ever.
        if helper.grown > self._memory // 2:
            helper.kill()
        else:
            self._idle.append(helper)
        self._free.release()

    @property
    def alive(self) -> bool:
        """See `Nursery.alive`."""
        return self._nursery.alive

    def close(self) -> None:
        """End all helpers that have nothing to do, and the nursery."""
        for helper in self._idle:
            helper.kill()
        self._idle.clear()
        self._nursery.close()
