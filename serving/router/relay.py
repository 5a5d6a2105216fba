"""Carries one request to a replica and its answer, unparsed, back to the client.

Rules: the status line is held back until the replica has answered, so an early failure has its
real status; a request that failed before a byte is sent once more, to another replica; once bytes
have left, a failure is an event in the stream; while nothing flows, a comment keeps the
connection alive; a client that leaves, or stops reading, is told to the replica at once. A request
for a model that sleeps waits for its first replica.

A stream's first bytes are sent by the request's task, the others where they are read from the link:
waking a task for every token would cost more than all else that the router does with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Receive, Send

from serving.api.sse import KEEPALIVE
from serving.errors import (
    ClientLeft,
    DeadlineExceeded,
    Ended,
    ModelUnavailable,
    Overloaded,
    ServingError,
)
from serving.http.request import Headers
from serving.observability.logs import Log
from serving.observability.metrics import RouterMetrics
from serving.router.answer import Answer, AttemptFailed
from serving.router.fleet import Fleet
from serving.router.record import Record
from serving.router.resolve import Route
from serving.router.response import Departure, Pulse, Response
from serving.router.waiting import Demand
from serving.wire.messages import Call, Head

_SSE = "text/event-stream"
# A client that takes nothing for this long is treated as gone.
STALL_S = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """One request, ready to be sent. `error_event` renders a failure inside its stream."""

    call: Call
    body: bytes
    route: Route
    headers: Headers
    error_event: Callable[[ServingError], bytes]


class Relay:
    """Relays jobs over the fleet's links.

    Args:
        keepalive_s: silence after which a stream gets a comment.
        timeout_s: how long one request may take in all.
        hold_s, hold_stream_s: how long a request, or a stream, waits for a model that sleeps.
        hold_max: how many do so at once; each has its body in memory.
        stall_s: how long a client may read nothing of what is sent.
    """

    def __init__(
        self,
        fleet: Fleet,
        demand: Demand,
        metrics: RouterMetrics,
        log: Log,
        *,
        keepalive_s: float,
        timeout_s: float,
        hold_s: float,
        hold_stream_s: float,
        hold_max: int,
        stall_s: float = STALL_S,
    ) -> None:
        self._fleet = fleet
        self._demand = demand
        self._metrics = metrics
        self._log = log
        self._keepalive_s = keepalive_s
        self._timeout_s = timeout_s
        self._hold_s = hold_s
        self._hold_stream_s = hold_stream_s
        self._hold_max = hold_max
        self._held_now = 0
        self._stall_s = stall_s

    async def run(
        self,
        job: Job,
        record: Record,
        receive: Receive,
        send: Send,
        write: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Answer one request; `write` is the server's `http_server.WRITE`, if it has that.

        Raises:
            ServingError: nothing has been sent; the caller renders it. A failure after the first
                byte is written into the stream and raised too, as `Ended`.
            ClientLeft: the client is gone.
        """
        response = Response(send, write, job.headers, record)
        departure = Departure(receive)
        try:
            with self._demand.using(job.route.engine.id):
                async with asyncio.timeout(self._timeout_s):
                    await self._attempts(job, record, response, departure)
        except ClientLeft:
            raise
        except TimeoutError:
            late = DeadlineExceeded(f"the request took longer than {self._timeout_s:g} s")
            await self._fail(late, job, response)
        except OSError:  # of `send`
            raise ClientLeft("the client left") from None
        except ServingError as error:
            await self._fail(error, job, response)
        except Exception as error:
            if not response.started:
                raise
            self._log.exception("relay_failed", error, request_id=record.request_id)
            bug = ServingError("internal error; the log has its cause")
            await self._fail(bug, job, response)
        finally:
            departure.close()

    async def _fail(self, error: ServingError, job: Job, response: Response) -> None:
        """Write `error` into a stream that has begun, or leave it to the caller."""
        if not response.started:
            raise error
        try:
            async with asyncio.timeout(self._stall_s):
                await response.body(job.error_event(error), more=False)
        except (TimeoutError, OSError):
            raise ClientLeft("the client does not read") from None
        raise Ended(error)

    async def _attempts(
        self, job: Job, record: Record, response: Response, departure: Departure
    ) -> None:
        engine = job.route.engine.id
        adapter = job.route.adapter.id if job.route.adapter else None
        tried: frozenset[str] = frozenset()
        while True:
            try:
                link = self._fleet.pick(engine, adapter, tried)
            except ModelUnavailable:
                if tried or not self._demand.sleeps(engine):
                    raise
                await self._held(engine, record, response, departure)
                continue
            record.replica = link.replica
            try:
                answer = link.open(job.call, job.body)
                try:
                    await self._copy(answer, record, response, departure)
                    return
                finally:
                    answer.abandon()
            except AttemptFailed as failed:
                if not failed.retryable or tried:
                    raise failed.error from None
                record.retried = True
                self._metrics.retries.labels(engine).inc()
                tried = frozenset((link.replica,))

    async def _copy(
        self, answer: Answer, record: Record, response: Response, departure: Departure
    ) -> None:
        departure.notify(answer.wake)
        try:
            with self._pulse(response, answer.wake) as pulse:
                while True:
                    if not answer.ready and not departure.happened:
                        await answer.wait()
                    if departure.happened:
                        raise ClientLeft("the client left")
                    if answer.failed is not None:
                        await self._flush(answer, record, response)
                        raise answer.failed
                    if answer.end is not None:
                        record.end = answer.end
                        await self._finish(answer, record, response)
                        return
                    await self._flush(answer, record, response)
                    if response.streams and not answer.ready:
                        answer.forward = response.forward
                    await self._beat(pulse, record, response)
        finally:
            answer.forward = None

    async def _held(
        self, model: str, record: Record, response: Response, departure: Departure
    ) -> None:
        """Wait until a model that slept has a replica.

        Raises:
            ModelUnavailable: it took too long.
            Overloaded: too many wait already, for this model or another.
        """
        wake = asyncio.Event()
        departure.notify(wake.set)
        self._demand.waking(model)
        if self._held_now >= self._hold_max:
            late = self._demand.unavailable(model, self._fleet.start_s(model))
            raise Overloaded(
                f"model '{model}' is asleep, and {self._held_now} requests wait at this router for "
                f"models to start, which is the limit; try again in {late.retry_after_s:.0f} s",
                retry_after_s=late.retry_after_s,
            )
        self._held_now += 1
        try:
            with self._pulse(response, wake.set) as pulse, self._fleet.watch(model, wake.set):
                async with asyncio.timeout(self._hold_stream_s if record.stream else self._hold_s):
                    while not self._fleet.ready(model):
                        await wake.wait()
                        wake.clear()
                        if departure.happened:
                            raise ClientLeft("the client left")
                        if not self._fleet.serves(model):
                            raise ModelUnavailable(f"model '{model}' is served here no longer")
                        news = self._demand.news(model, self._fleet.start_s(model))
                        await self._beat(pulse, record, response, news)
        except TimeoutError:
            raise self._demand.unavailable(model, self._fleet.start_s(model)) from None
        finally:
            self._held_now -= 1

    def _pulse(self, response: Response, wake: Callable[[], None]) -> Pulse:
        return Pulse(response, wake, self._keepalive_s, self._stall_s)

    async def _beat(
        self, pulse: Pulse, record: Record, response: Response, comment: bytes = KEEPALIVE
    ) -> None:
        if pulse.due:
            pulse.due = False
            if record.stream:
                await response.keep_alive(self._keepalive_s / 2, comment)

    async def _flush(self, answer: Answer, record: Record, response: Response) -> None:
        """Send what has arrived of a stream; a whole answer is put aside until its end."""
        head = answer.head
        data = answer.take()
        if not data:
            return
        if head is None or not _is_stream(head):
            response.whole.append(data)
        else:
            if not response.started:
                await response.start(head.status, _head_headers(head))
            response.streams = True
            record.on_bytes()
            await response.body(data, more=True)

    async def _finish(self, answer: Answer, record: Record, response: Response) -> None:
        head = answer.head or Head(200, ())
        data = b"".join((*response.whole, answer.take()))
        if response.started and not _is_stream(head):
            # A comment has gone out before the engine refused: its JSON becomes an event.
            record.status = head.status
            data = b"data: " + data + b"\n\n"
        if not response.started:
            headers = _head_headers(head)
            if not _is_stream(head):
                headers.append((b"content-length", str(len(data)).encode()))
            await response.start(head.status, headers)
        if data:
            record.on_bytes()
        await response.body(data, more=False)


def _is_stream(head: Head) -> bool:
    return any(
        name.lower() == "content-type" and value.startswith(_SSE) for name, value in head.headers
    )


def _head_headers(head: Head) -> Headers:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in head.headers
        if name.lower() != "content-length"
    ]
