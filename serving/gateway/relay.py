"""Carries one request to a replica and its answer, unparsed, back to the client.

Rules: the status line is held back until the replica has answered, so an early failure has its
real status; a request that failed before a byte is sent once more, to another replica; once bytes
have left, a failure is an event in the stream; while nothing flows, a comment keeps the
connection alive; a client that leaves, or stops reading, is told to the replica at once.

A stream's first bytes are sent by the request's task, the others where they are read from the link:
waking a task for every token would cost more than all else that the router does with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Receive, Send

from serving.api.sse import CONTENT_TYPE, KEEPALIVE
from serving.engine.protocol import Call, Head
from serving.errors import ClientLeft, DeadlineExceeded, Ended, ServingError
from serving.gateway.fleet import Fleet
from serving.gateway.http import Headers
from serving.gateway.link import Answer, Failed
from serving.gateway.record import Record
from serving.gateway.resolve import Route
from serving.observability.logs import Log
from serving.observability.metrics import RouterMetrics

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


class Departure:
    """Notices that the client has gone, whoever runs the app: Ray Serve cancels the request's
    task, plain uvicorn only says so when asked."""

    def __init__(self, receive: Receive) -> None:
        self._task = asyncio.create_task(self._wait(receive))
        self._wake: Callable[[], None] | None = None

    @property
    def happened(self) -> bool:
        return self._task.done()

    def notify(self, wake: Callable[[], None]) -> None:
        """Call `wake` when the client leaves; replaces the function given before."""
        self._wake = wake

    def close(self) -> None:
        self._wake = None
        self._task.cancel()

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        asyncio.get_running_loop().call_soon(self._fire)

    def _fire(self) -> None:
        if self._wake is not None:
            self._wake()


class _Response:
    """The client's side of one relay: what has been sent so far.

    `write`, where the server has it (`http_server.WRITE`), sends without waiting or refuses to.
    """

    def __init__(
        self, send: Send, write: Callable[[bytes], bool] | None, headers: Headers, record: Record
    ) -> None:
        self._send = send
        self._write = write
        self._headers = headers
        self._record = record
        self.started = False
        # Bytes of a stream have been sent: what follows may be forwarded as it comes.
        self.streams = False
        self.last_sent = time.monotonic()
        # Since when a `send` waits for the client to read; None while none does.
        self.blocked_since: float | None = None
        self.whole: list[bytes] = []

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self._record.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": headers + self._headers,
            }
        )

    async def body(self, data: bytes, *, more: bool) -> None:
        self.last_sent = self.blocked_since = time.monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self.blocked_since = None

    def forward(self, data: bytes, now: float) -> bool:
        """See `Answer.forward`."""
        if self.blocked_since is not None or self._write is None or not self._write(data):
            return False
        self.last_sent = self._record.last_byte = now
        return True


class _Pulse:
    """Wakes a relay every `interval_s` to look at the clock, and ends one whose client reads
    nothing for `stall_s`; one timer per request instead of one per event."""

    def __init__(
        self, response: _Response, wake: Callable[[], None], interval_s: float, stall_s: float
    ) -> None:
        self._response = response
        self._wake = wake
        self._interval_s = interval_s
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(interval_s, self._beat)
        self.due = False
        self.stalled = False

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        since = self._response.blocked_since
        if since is not None and time.monotonic() - since > self._stall_s:
            self.stalled = True
            if self._task is not None:
                self._task.cancel()
            return
        self.due = True
        self._wake()
        self._timer = self._loop.call_later(self._interval_s, self._beat)


class Relay:
    """Relays jobs over the fleet's links.

    Args:
        keepalive_s: silence after which a stream gets a comment.
        timeout_s: how long one request may take in all.
        stall_s: how long a client may read nothing of what is sent.
    """

    def __init__(
        self,
        fleet: Fleet,
        metrics: RouterMetrics,
        log: Log,
        *,
        keepalive_s: float,
        timeout_s: float,
        stall_s: float = STALL_S,
    ) -> None:
        self._fleet = fleet
        self._metrics = metrics
        self._log = log
        self._keepalive_s = keepalive_s
        self._timeout_s = timeout_s
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
        response = _Response(send, write, job.headers, record)
        departure = Departure(receive)
        try:
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

    async def _fail(self, error: ServingError, job: Job, response: _Response) -> None:
        """Write `error` into a stream that has begun, or leave it to the caller."""
        if not response.started:
            raise error
        await response.body(job.error_event(error), more=False)
        raise Ended(error)

    async def _attempts(
        self, job: Job, record: Record, response: _Response, departure: Departure
    ) -> None:
        engine = job.route.engine.id
        adapter = job.route.adapter.id if job.route.adapter else None
        tried: frozenset[str] = frozenset()
        while True:
            link = self._fleet.pick(engine, adapter, tried)
            record.replica = link.replica
            try:
                answer = link.open(job.call, job.body)
                try:
                    await self._copy(answer, record, response, departure)
                    return
                finally:
                    answer.abandon()
            except Failed as failed:
                if not failed.retryable or tried:
                    raise failed.error from None
                record.retried = True
                self._metrics.retries.labels(engine).inc()
                tried = frozenset((link.replica,))

    async def _copy(
        self, answer: Answer, record: Record, response: _Response, departure: Departure
    ) -> None:
        pulse = _Pulse(response, answer.wake, self._keepalive_s, self._stall_s)
        departure.notify(answer.wake)

        try:
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
                if pulse.due:
                    pulse.due = False
                    if record.stream:
                        await self._keep_alive(response)
        except asyncio.CancelledError:
            if not pulse.stalled:
                raise
            _uncancel()
            raise ClientLeft(f"the client read nothing for {self._stall_s:g} s") from None
        finally:
            answer.forward = None
            pulse.stop()

    async def _flush(self, answer: Answer, record: Record, response: _Response) -> None:
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

    async def _finish(self, answer: Answer, record: Record, response: _Response) -> None:
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

    async def _keep_alive(self, response: _Response) -> None:
        if time.monotonic() - response.last_sent < self._keepalive_s / 2:
            return
        if not response.started:
            await response.start(200, [(b"content-type", CONTENT_TYPE)])
        await response.body(KEEPALIVE, more=True)


def _uncancel() -> None:
    """The cancellation was our own and has been dealt with."""
    if (task := asyncio.current_task()) is not None:
        task.uncancel()


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
