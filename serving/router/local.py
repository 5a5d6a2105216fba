"""An engine inside the router's own process, which the relay uses like a replica behind a link.

For hosted models: they need no devices and no process of their own, and another hop would only
cost time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

from serving.engine.allowance import SPENT, Spending
from serving.engine.calls import run_call
from serving.engine.interface import Engine, Tally
from serving.errors import ModelUnavailable, ServingError
from serving.observability.logs import Log
from serving.router.answer import Answer, AttemptFailed
from serving.wire.body import Body, whole
from serving.wire.messages import Call, Head, Load, Spent

# What a client that reads slowly may leave unread before the engine is made to wait, in bytes.
HIGH_WATER = 64 * 1024


class LocalReply:
    """Writes one call's answer to where the relay reads it."""

    __slots__ = ("_answer", "_loop", "_spending", "_waiter")

    def __init__(self, answer: Answer, spending: Spending | None = None) -> None:
        self._answer = answer
        self._spending = spending
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        answer.on_taken = self._taken

    @property
    def writable(self) -> bool:
        return self._answer.unread < HIGH_WATER

    def head(self, head: Head) -> None:
        self._answer.on_head(head)

    def data(self, data: bytes) -> None:
        due: list[Answer] = []
        self._answer.on_data(data, due)
        for answer in due:
            answer.deliver(time.monotonic())
        spending = self._spending
        if spending is not None and spending.ending and not spending.stopped:
            spending.look()

    async def drained(self) -> None:
        while not self.writable:
            self._waiter = self._loop.create_future()
            await self._waiter

    def _taken(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class LocalReplica:
    """One engine in this process, with what the relay and `/status` use of a `ReplicaLink`.

    Args:
        replica: its ID.
        address: host and port of the provider, for `/status`.
        state: returns `ready`, or why a request would fail now.
    """

    def __init__(
        self,
        replica: str,
        engine: Engine,
        *,
        address: tuple[str, int],
        state: Callable[[], str],
        log: Log,
    ) -> None:
        self.replica = replica
        self.engine = engine
        self.address = address
        self._state = state
        self._log = log.bind(replica=replica)
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._closing = False

    @property
    def up(self) -> bool:
        """True if a request may succeed now."""
        return self.state == "ready"

    @property
    def connected(self) -> bool:
        return True

    @property
    def state(self) -> str:
        """As in `/status`."""
        return self._state()

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    @property
    def busy(self) -> int:
        return len(self._calls)

    @property
    def load(self) -> Load:
        load = self.engine.load()
        return Load(self.in_flight, self.in_flight, load.running, load.waiting)

    def open(self, call: Call, body: Body = b"") -> Answer:
        """Start one call."""
        stream = next(self._numbers)
        answer, tally = Answer(self, stream), Tally()
        spending = self._watch(stream, call, answer, tally) if call.allowance else None
        reply = LocalReply(answer, spending)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(call, whole(body), reply, answer, tally))
        self._calls[stream] = task

        def done(task: asyncio.Task[None]) -> None:
            del self._calls[stream]
            if spending is not None:
                spending.close()
            # Here and not in the task: one that is cancelled before its first step never runs.
            if not task.cancelled():
                return
            if spending is not None and spending.stopped:
                self._fail(SPENT, answer, tally)
            else:
                self._cancelled(answer, tally)

        task.add_done_callback(done)
        return answer

    def cancel(self, stream: int) -> None:
        """Stop a call, which closes whatever it has open; a no-op after its end."""
        if (task := self._calls.get(stream)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel what runs and wait for it."""
        self._closing = True
        tasks = list(self._calls.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _watch(self, stream: int, call: Call, answer: Answer, tally: Tally) -> Spending:
        """Let a call go no further than its limits allow."""
        loop = asyncio.get_running_loop()

        def tell(spent: Spent) -> None:
            if answer.on_spent is not None and not answer.closed:
                spending.allow(answer.on_spent(spent))

        # Not from within the look that says it: to be allowed more is to look again.
        def say(spent: Spent) -> None:
            loop.call_soon(tell, spent)

        spending = Spending(tally, call.allowance, say, lambda: self.cancel(stream))
        return spending

    def _fail(self, error: ServingError, answer: Answer, tally: Tally) -> None:
        answer.on_fail(AttemptFailed(error, retryable=False, used=tally.used()))

    def _cancelled(self, answer: Answer, tally: Tally) -> None:
        if self._closing:
            self._fail(ModelUnavailable("the router is going down"), answer, tally)
        else:
            answer.on_end(tally.used())

    async def _run(
        self, call: Call, body: bytes, reply: LocalReply, answer: Answer, tally: Tally
    ) -> None:
        """Run one call to its end or its failure; either says what the call has used.

        No failure is retryable: there is no other replica, and the engine has retried what it may
        (`upstream/client.py`).
        """
        try:
            await run_call(self.engine, call, body, reply, tally)
        except ServingError as error:
            self._fail(error, answer, tally)
        except Exception as error:  # noqa: BLE001 - the caller gets no stack trace, the log does
            self._log.exception("call_failed", error, request_id=call.request_id)
            self._fail(ServingError("internal error; the log has its cause"), answer, tally)
        else:
            answer.on_end(tally.end())
