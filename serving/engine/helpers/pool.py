"""A bounded number of helpers, each with a deadline and a limit on its memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

from serving.engine.helpers.helper import Helper, HelperEnded
from serving.engine.helpers.nursery import Nursery
from serving.errors import InvalidRequest, Overloaded

# How often a running job is looked at.
LOOK_S = 0.05
# A job whose caller has left may end within this time; then its helper is killed. A helper that is
# ready costs less than a new one.
GRACE_S = 0.5


class Helpers:
    """A bounded number of helpers, which are started when they are needed: one ahead of need, since
    a start takes a second or two.

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
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._most_waiting = waiting
        self._waiting = 0
        # Helpers that there are, those that start among them.
        self._count = 0
        self._idle: list[Helper] = []
        # Jobs of which each waits for the next helper that is ready.
        self._next: deque[asyncio.Future[Helper]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
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
            helper = await self._take()
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

    async def _take(self) -> Helper:
        """An idle helper, else whichever is ready first: one that starts, or one that is done.

        Raises:
            HelperEnded: none could be started.
        """
        if self._idle:
            helper = self._idle.pop()
            if not self._idle:
                self._start()
            return helper
        ready: asyncio.Future[Helper] = asyncio.get_running_loop().create_future()
        self._next.append(ready)
        self._start()
        try:
            return await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled() and ready.exception() is None:
                self._offer(ready.result())
            raise

    def _start(self) -> None:
        """Have one more helper forked, if there may be one."""
        if self._count < self._most:
            self._count += 1
            self._run_task(self._fork())

    async def _fork(self) -> None:
        try:
            helper = await self._nursery.helper()
        except HelperEnded as error:
            self._count -= 1
            if (ready := self._first_waiting()) is not None:
                ready.set_exception(error)
        else:
            self._offer(helper)

    def _offer(self, helper: Helper) -> None:
        """Give a helper to whoever waits for one."""
        if (ready := self._first_waiting()) is not None:
            ready.set_result(helper)
        else:
            self._idle.append(helper)

    def _first_waiting(self) -> asyncio.Future[Helper] | None:
        while self._next:
            if not (ready := self._next.popleft()).done():
                return ready
        return None

    def _discard(self, helper: Helper) -> None:
        helper.kill()
        self._count -= 1
        if self._next:
            self._start()

    def _run_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
            self._discard(helper)
            self._free.release()
            return
        self._run_task(self._let_end(helper, asking))

    async def _let_end(self, helper: Helper, asking: asyncio.Future[bytes]) -> None:
        await asyncio.wait({asking}, timeout=GRACE_S)
        if asking.done() and not asking.cancelled() and asking.exception() is None:
            self._put(helper)
            return
        asking.cancel()
        self._discard(helper)
        self._free.release()

    def _put(self, helper: Helper) -> None:
        # What a job has left behind is not carried along for ever.
        if helper.grown > self._memory // 2:
            self._discard(helper)
        else:
            self._offer(helper)
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
