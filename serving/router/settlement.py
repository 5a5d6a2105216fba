"""The last step of every request: what it used is charged, counted and logged, once.

Of most requests that is known when their answer ends. A replica that was told to stop a call says a
moment later what it had used; the client does not wait for that, and the task of a connection is no
place to wait for it: the server cuts it off whenever it closes. So the router waits, in a task of
its own, and does not close before that has ended.
"""

from __future__ import annotations

import asyncio

from serving.observability.logs import Log
from serving.observability.tasks import background, end
from serving.router.answer import Answer
from serving.router.record import Record, Recorder
from serving.router.replica import CLOSING_S
from serving.wire.messages import End


class Settlements:
    """Settles requests whose outcome is known."""

    def __init__(self, recorder: Recorder, log: Log) -> None:
        self._recorder = recorder
        self._log = log
        self._waiting: set[asyncio.Task[None]] = set()

    async def before_last_byte(self, record: Record, answer: Answer, used: End) -> None:
        """Settle a request whose answer has come to its end, before the last of it leaves."""
        assert record.ticket is not None
        record.complete(200 if answer.head is None else answer.head.status, used)
        await record.ticket.settle(record.entry())

    async def settle(self, record: Record) -> None:
        """Settle a request that has ended, however it did; called once for each.

        Nothing is lost if it is cancelled: the ledger has the entry before it first waits
        (`Policy.settle`), or the entry's task is not the caller's.
        """
        answer = record.answer
        if answer is None or answer.closed:
            record.used = None if answer is None else answer.last_word
            await self._finish(record)
            return
        task = background(self._settle_later(record, answer), "settle", self._log)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Return when everything is settled. Called when no more requests come, and while replicas
        can still speak."""
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=CLOSING_S)
        await end(*self._waiting)

    async def _settle_later(self, record: Record, answer: Answer) -> None:
        try:
            record.used = await answer.used(CLOSING_S)
        finally:
            await self._finish(record)

    async def _finish(self, record: Record) -> None:
        try:
            if record.ticket is not None:
                await record.ticket.settle(record.entry())
        finally:
            self._recorder.write(record)
