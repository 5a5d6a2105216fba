"""One request and its response, as ASGI's `receive` and `send`
(asgi.readthedocs.io/en/latest/specs/www.html), and how the response is framed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope

from serving.errors import ModelUnavailable, ServingError
from serving.http.head import Head
from serving.http.refusal import status_line
from serving.http.request import Headers

# Of a body that the app has not read yet; above it nothing more is read from the socket.
HIGH_WATER_BYTES = 64 * 1024

_BAD_NAME = re.compile(rb'[\x00-\x20\x7f-\xff()<>@,;:\\"/[\]?={}]')
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_WITHOUT_BODY = frozenset((204, 304))


class Line(Protocol):
    """The connection, as far as one exchange needs it."""

    @property
    def write(self) -> Callable[[bytes], None]: ...
    @property
    def paused(self) -> bool:
        """True while the client does not read what is sent."""

    @property
    def default_headers(self) -> Headers: ...
    async def drained(self) -> None: ...
    def resume_reading(self) -> None: ...
    def response_ended(self, exchange: Exchange) -> None: ...
    def app_ended(self, exchange: Exchange, failure: ServingError) -> None: ...


class Exchange:
    """One request and its response.

    `left`: the client will send nothing more, or is gone. `lost`: nothing more can be sent to it.
    `started` and `ended` are of the response, `received` of the request. After the response the
    connection lives on if `keep_alive`.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_direct",
        "_fault",
        "_head",
        "_line",
        "_parts",
        "_remaining",
        "_told",
        "_waiter",
        "_wants_continue",
        "_write",
        "buffered",
        "ended",
        "keep_alive",
        "left",
        "lost",
        "received",
        "started",
    )

    def __init__(self, head: Head, line: Line) -> None:
        self._head = head
        self._line = line
        self._write = line.write
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._wants_continue = head.expects_continue
        # What is wrong with the body, found while it came.
        self._fault: ServingError | None = None
        # The end of the body has been told to the app.
        self._told = False
        # `write` may be used: in the middle of a chunked body that the client reads.
        self._direct = False
        # How the response's body is framed: in chunks, or by its length, of which so much is left;
        # if neither, it has none, or it ends with the connection.
        self._chunked = False
        self._remaining: int | None = None
        self._bodiless = False
        self.buffered = 0
        self.received = False
        self.started = False
        self.ended = False
        self.left = False
        self.lost = False
        self.keep_alive = head.keep_alive

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let `app` answer; whatever it raises is raised."""
        failure = ServingError("internal error; the log has its cause")
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            failure = ModelUnavailable("the server is stopping; try again")
            raise
        finally:
            self._line.app_ended(self, failure)

    # what comes from the client

    def on_body(self, data: bytes) -> None:
        """A part of the request's body has come."""
        self._wants_continue = False
        if data and not self.ended:
            self._parts.append(data)
            self.buffered += len(data)
            self._wake()

    def on_received(self) -> None:
        """The request is complete."""
        self._wants_continue = False
        self.received = True
        self._wake()

    def on_fault(self, fault: ServingError) -> None:
        """The body turned out to be none: `receive` raises `fault`."""
        self._fault = fault
        self._wake()

    def on_left(self) -> None:
        """The client will send nothing more. Whether it still reads cannot be known; for whoever
        waits for an answer that takes long, it is gone."""
        self.left = True
        self._wake()

    def on_lost(self) -> None:
        """The connection is closed."""
        self.left = self.lost = True
        self._direct = False
        self._wake()

    def on_writable(self, writable: bool) -> None:
        """The client has begun to read again, or stopped."""
        self._direct = writable and self._chunked and not (self.ended or self.lost)

    # ASGI

    async def receive(self) -> Message:
        """ASGI's `receive`.

        Raises:
            ServingError: the body is malformed.
        """
        while True:
            if self.left or self.ended:
                return {"type": "http.disconnect"}
            if self._parts or (self.received and not self._told):
                body = b"".join(self._parts)
                self._parts.clear()
                self.buffered = 0
                self._told = self.received
                return {"type": "http.request", "body": body, "more_body": not self.received}
            if self._fault is not None:
                raise self._fault
            if self._wants_continue:
                self._wants_continue = False
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._line.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def send(self, message: Message) -> None:
        """ASGI's `send`; waits while the client does not read."""
        while self._line.paused and not self.lost:
            await self._line.drained()
        if self.lost:
            return
        if not self.started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"a response cannot start with {message['type']}")
            self._start(message["status"], message.get("headers", ()))
        elif self.ended or message["type"] != "http.response.body":
            raise RuntimeError(f"{message['type']} comes too late")
        else:
            self._body(message.get("body", b""), more=message.get("more_body", False))

    def write(self, data: bytes) -> bool:
        """See `serving.http.request.WRITE`. Called for every event of a stream."""
        if not self._direct or not data:
            return False
        self._write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        lines = [status_line(status)]
        length: int | None = None
        # What is left of the request's body would stand before the next request.
        keep_alive = self.keep_alive and self.received
        for name, value in (*self._line.default_headers, *headers):
            if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
                raise RuntimeError("a header of the response is none")
            name = name.lower()
            if name == b"connection":
                keep_alive = keep_alive and value.lower() != b"close"
                continue
            if name == b"transfer-encoding":
                continue  # that is decided below
            if name == b"content-length":
                length = int(value)
            lines.append(b"%b: %b\r\n" % (name, value))
        if self._head.method == "HEAD" or status in _WITHOUT_BODY:
            self._bodiless = True
        elif length is not None:
            self._remaining = length
        elif self._head.version == "1.1":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            # HTTP/1.0 knows no chunks: the body ends with the connection (RFC 9112, section 6.1).
            keep_alive = False
        if not keep_alive:
            lines.append(b"connection: close\r\n")
        elif self._head.version == "1.0":
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        self.started = True
        self.keep_alive = keep_alive
        self._wants_continue = False
        self._direct = self._chunked and not self._line.paused
        self._write(b"".join(lines))

    def _body(self, data: bytes, *, more: bool) -> None:
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError("the response's body is not as long as its content-length")
        if self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data = framed if more else framed + b"0\r\n\r\n"
        if data and not self._bodiless:
            self._write(data)
        if not more:
            self.ended = True
            self._direct = False
            self._wake()
            self._line.response_ended(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
