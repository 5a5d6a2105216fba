"""Carries one request to a replica and its answer, unparsed, back to the client.

The status line is held back until the replica has answered, so an early failure has its real
status. A request whose replica fails before a byte of the answer has left is sent once more, to
another replica, if the router's budget of retries allows it (`retry_budget.py`) and it is not
suspected of the failure (`quarantine.py`); where there is no other, it waits for one that is coming
(`waiting.py`). If the replica died of it or of one beside it, it may be sent a third time: the next
death tells which it was (`doubts.py`). There is no other retry. Once bytes have left, a failure is
an event in the stream. When the client leaves, or has read nothing for too long, the replica is
told at once to stop.

A stream's first bytes are sent by the request's task, the others in the callback that reads them
from the link: waking a task for every token would cost more than all else that the router does
with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serving.accounts.quota.hold import Hold
from serving.api.dialect import Dialect
from serving.errors import (
    BudgetExhausted,
    ClientLeft,
    DeadlineExceeded,
    Ended,
    ModelUnavailable,
    Quarantined,
    ServingError,
)
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.router.answer import Answer, AttemptFailed, is_stream
from serving.router.copies import Copies
from serving.router.demand import Demand
from serving.router.doubts import Doubts
from serving.router.fleet import Fleet, Replica
from serving.router.quarantine import Quarantine
from serving.router.record import Record
from serving.router.resolve import Route
from serving.router.response import Response
from serving.router.retry_budget import RetryBudget
from serving.router.waiting import Waiting
from serving.wire.body import Body
from serving.wire.messages import Call, End, Head


@dataclass(frozen=True, slots=True)
class Job:
    """One call, ready to be relayed.

    `dialect` writes a failure as an event of the stream. `settle` is awaited with an answer that
    ends well and what the request used, before its last byte. `hold` is what it holds of limits;
    None if it has none.
    """

    call: Call
    body: Body
    route: Route
    dialect: Dialect
    settle: Callable[[Answer, End], Awaitable[None]]
    hold: Hold | None = None


class Relay:
    """Relays jobs over the fleet's links. Each may take `timeout_s` seconds in all."""

    def __init__(
        self,
        fleet: Fleet,
        demand: Demand,
        waiting: Waiting,
        quarantine: Quarantine,
        doubts: Doubts,
        copies: Copies,
        budget: RetryBudget,
        metrics: RouterMetrics,
        log: Log,
        *,
        timeout_s: float,
    ) -> None:
        self._fleet = fleet
        self._demand = demand
        self._waiting = waiting
        self._quarantine = quarantine
        self._doubts = doubts
        self._copies = copies
        self._budget = budget
        self._metrics = metrics
        self._log = log
        self._timeout_s = timeout_s

    async def run(self, job: Job, record: Record, response: Response) -> None:
        """Answer one request. Sets `record.answer`, which may learn what was used only later.

        Raises:
            ServingError: nothing has been sent; the caller answers with the error.
            Ended: it failed after its first byte, and the stream has been told.
            ClientLeft: the client is gone.
        """
        try:
            with self._demand.using(job.route.engine.id):
                async with asyncio.timeout(self._timeout_s):
                    await self._attempts(job, record, response)
        except ClientLeft:
            raise
        except TimeoutError:
            late = DeadlineExceeded(f"the request took longer than {self._timeout_s:g} s")
            await self._fail(late, job, response)
        except OSError:  # raised by `send`
            raise ClientLeft("the client left") from None
        except ServingError as error:
            if isinstance(error, BudgetExhausted) and job.hold is not None:
                # The replica does not know which budget it was.
                error = job.hold.exhausted or error
            if isinstance(error, Quarantined):
                self._metrics.quarantined.labels(job.route.engine.id).inc()
            await self._fail(error, job, response)
        except Exception as error:
            if not response.started:
                raise
            self._log.exception("relay_failed", error, request_id=record.request_id)
            bug = ServingError("internal error; the log has its cause")
            await self._fail(bug, job, response)

    async def _fail(self, error: ServingError, job: Job, response: Response) -> None:
        """Raise `error` if nothing has been sent; else put it into the stream and raise `Ended`."""
        if not response.started:
            raise error
        try:
            async with asyncio.timeout(response.stall_s):
                event = job.dialect.event(error, job.call.request_id)
                await response.body(event, more=False)
        except (TimeoutError, OSError):
            raise ClientLeft("the client does not read") from None
        raise Ended(error)

    async def _attempts(self, job: Job, record: Record, response: Response) -> None:
        """Send the job to a replica, and to another if that fails before a byte has left."""
        engine = job.route.engine.id
        retries, allowed = 0, 1
        self._budget.request()
        replica = await self._choose(job, record, response)
        while True:
            try:
                await self._attempt(replica, job, record, response)
            except AttemptFailed as failed:
                if not failed.retryable or response.streams:
                    raise failed.error from None
                failure = failed.error
            else:
                self._doubts.passed(engine, job.call, job.body)
                return
            # Its replica may have said that it died of it.
            self._quarantine.check(engine, job.call, job.body)
            apart_s = None
            if self._doubts.home(engine, job.call, job.body) is not None:
                allowed, apart_s = 2, self._doubts.apart_s()
            if retries == allowed:
                raise failure
            if not self._budget.take():
                self._metrics.retries_refused.labels(engine).inc()
                raise failure
            response.whole.clear()
            try:
                replica = await self._choose(
                    job, record, response, replica.replica, failure, apart_s
                )
            except BaseException:
                self._budget.give_back()
                raise
            retries += 1
            record.retried = True
            self._metrics.retries.labels(engine).inc()

    async def _choose(
        self,
        job: Job,
        record: Record,
        response: Response,
        failed: str | None = None,
        failure: ServingError | None = None,
        apart_s: float | None = None,
    ) -> Replica:
        """Choose a replica; where there is none, wait for one that is coming.

        Args:
            failed: the replica that has failed on the job, and how.
            apart_s: wait so many seconds more once there is one.
        """
        engine = job.route.engine.id
        adapter = job.route.adapter.id if job.route.adapter else None
        tried = frozenset(() if failed is None else (failed,))
        while True:
            # At every turn: it may have become a suspect while it waited or ran.
            self._quarantine.check(engine, job.call, job.body)
            home = self._doubts.home(engine, job.call, job.body)
            beside = self._copies.replica(engine, job.call, job.body)
            try:
                replica = self._fleet.pick(engine, adapter, tried, home, beside)
            except ModelUnavailable:
                if not self._waiting.coming(engine, failure):
                    if failure is not None:
                        # The only replica is there: a full queue, say, is no missing model.
                        raise failure from None
                    raise
            else:
                if apart_s is None:
                    return replica
                await asyncio.sleep(apart_s)
                apart_s = None
                continue
            record.held_s = await self._waiting.until_ready(
                engine, response, stream=record.stream, held_s=record.held_s
            )
            # Whoever is up now has come up since, the one that failed included.
            tried = frozenset()

    async def _attempt(
        self, replica: Replica, job: Job, record: Record, response: Response
    ) -> None:
        """Send the job to a replica and its answer to the client.

        Raises:
            AttemptFailed: the replica failed.
        """
        record.replica = replica.replica
        record.answer = answer = replica.open(job.call, job.body)
        if job.hold is not None:
            answer.on_spent = job.hold.spent
        engine = job.route.engine.id
        try:
            with (
                self._quarantine.sent(answer, engine, job.call, job.body, response),
                self._copies.sent(engine, job.call, job.body, replica.replica),
            ):
                await self._copy(answer, job, record, response)
        finally:
            answer.abandon()

    async def _copy(self, answer: Answer, job: Job, record: Record, response: Response) -> None:
        """Pass on what comes until the answer ends."""
        try:
            with response.attended(answer.wake):
                while True:
                    if not answer.ready and not response.left:
                        await answer.wait()
                    if response.left:
                        raise ClientLeft("the client left")
                    if answer.failed is not None:
                        if response.streams or not answer.failed.retryable:
                            await self._flush(answer, record, response)
                        raise answer.failed
                    if answer.end is not None:
                        await job.settle(answer, answer.end)
                        await self._finish(answer, job, record, response)
                        return
                    await self._flush(answer, record, response)
                    if response.streams and not answer.ready:
                        answer.forward = response.forward
                    await response.beat()
        finally:
            answer.forward = None

    async def _flush(self, answer: Answer, record: Record, response: Response) -> None:
        """Send what has arrived of a stream; keep an answer that is not streamed until its end."""
        head = answer.head
        data = answer.take()
        if not data:
            return
        if head is None or not is_stream(head):
            response.whole.append(data)
        else:
            if not response.started:
                await response.start(head)
            response.streams = True
            record.on_bytes()
            await response.body(data, more=True)

    async def _finish(self, answer: Answer, job: Job, record: Record, response: Response) -> None:
        """Send the last bytes."""
        head = answer.head or Head(200, ())
        data = b"".join((*response.whole, answer.take()))
        if response.started and not is_stream(head):
            # A keepalive was sent before the engine answered: its JSON becomes an event.
            record.status = head.status
            refused = head.status >= 400
            data = job.dialect.frame(data) if refused else b"data: " + data + b"\n\n"
        if not response.started:
            await response.start(head, None if is_stream(head) else len(data))
        if data:
            record.on_bytes()
        await response.body(data, more=False)
