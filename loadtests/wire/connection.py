"""One connection to the service: a request at a time, and the bytes of its answer with times.

What is read is stamped at once and parsed after all sockets that are ready have been read: an
event's time then has none of the parsing of other answers in it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Protocol, cast

import httptools

from loadtests.clock import Clock
from loadtests.wire.slow import Throttle

# Where services put the ID of a request; the first is the usual one.
ID_HEADERS = (b"x-request-id", b"request-id")


class Reader(Protocol):
    """Who waits for an answer on a connection."""

    def sent(self, at: float) -> None:
        """The kernel has the whole request."""

    def head(self, status: int, content_type: bytes, request_id: str, retry_after: bool) -> None:
        """The status line and headers are here."""

    def feed(self, at: float, data: bytes) -> None:
        """A part of the body was read at this time."""

    def complete(self, at: float) -> None:
        """The response is whole. The connection has gone back to the pool or is closed."""

    def broken(self, at: float, kind: str) -> None:
        """The connection has ended before the response did."""


class Pool(Protocol):
    """Who keeps idle connections."""

    def put(self, connection: Connection) -> None:
        """Keep this connection for another request."""

    def drop(self, connection: Connection) -> None:
        """This connection has ended."""


class Inbox:
    """Connections that have read something which is not parsed yet."""

    __slots__ = ("_full", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._full: list[Connection] = []

    def add(self, connection: Connection) -> None:
        """Have this connection's bytes parsed when all that is ready has been read."""
        if not self._full:
            self._loop.call_soon(self._parse)
        self._full.append(connection)

    def _parse(self) -> None:
        full, self._full = self._full, []
        for connection in full:
            connection.parse()


class Connection(asyncio.Protocol):
    """A connection, which its pool and one reader at a time use."""

    def __init__(
        self,
        clock: Clock,
        inbox: Inbox,
        pool: Pool,
        sock: socket.socket | None,
        slow_bytes_per_s: float | None = None,
    ) -> None:
        """`sock` is for writing past the transport; None with TLS."""
        self._now = clock.now
        self._inbox = inbox
        self._pool = pool
        self._sock = sock
        self._throttle = None if slow_bytes_per_s is None else Throttle(clock, slow_bytes_per_s)
        self._transport: asyncio.Transport | None = None
        self._reader: Reader | None = None
        self._flushing = False
        self._read: list[tuple[float, bytes]] = []
        self._at = 0.0
        self._parser: Any = httptools.HttpResponseParser(self)
        self._clear()
        self.answers = 0  # that it has carried
        self.idle_since = 0.0
        self.open = False

    def _clear(self) -> None:
        self._content_type = b""
        self._request_id = ""
        self._retry_after = False
        self._bounded = False
        self._headed = False
        self._whole = False
        self._more = False
        self._keep = False

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Stamp what was read; see the module."""
        if not self._read:
            self._inbox.add(self)
        self._read.append((self._now(), data))
        if self._throttle is not None and self._transport is not None and self.open:
            self._throttle.took(len(data), self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reader, after it has had what came before."""
        at = self._now()
        self.parse()
        self.open = False
        if self._throttle is not None:
            self._throttle.end()
        # They point back here: a circle, which would wait for the garbage collector.
        self._parser = self._transport = None
        self._pool.drop(self)
        reader = self._reader
        if reader is None:
            return
        self._reader = None
        if exc is None and self._headed and not self._bounded:
            reader.complete(at)  # a body without a length ends with its connection
            return
        where = "in the answer" if self._headed else "before the answer"
        if self.answers and not self._headed:
            where += ", kept connection"
        if exc is None:
            reader.broken(at, "truncated" if self._headed else f"closed {where}")
        else:
            reader.broken(at, f"{error_kind(exc)} {where}")

    def resume_writing(self) -> None:
        """The kernel has taken all of a request that it did not take at once."""
        if self._flushing and self._reader is not None:
            self._flushing = False
            self._reader.sent(self._now())

    def pause_writing(self) -> None:
        """Nothing to do: `resume_writing` is what matters."""

    # --- its user ---

    def send(self, request: bytes, reader: Reader) -> None:
        """Send a request; `reader` is told what comes of it."""
        assert self._transport is not None
        assert self._reader is None
        self._reader = reader
        self._clear()
        sent = 0
        if self._sock is not None:
            try:
                sent = self._sock.send(request)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                # The transport finds it out as well, and says so by `connection_lost`.
                return
            if sent == len(request):
                reader.sent(self._now())
                return
            self._flushing = True
            self._transport.write(memoryview(request)[sent:])
            return
        self._transport.write(request)
        # uvloop and asyncio hand it to the kernel before they wait for the next event.
        asyncio.get_running_loop().call_soon(self._handed, reader)

    def _handed(self, reader: Reader) -> None:
        if self._reader is reader:
            reader.sent(self._now())

    def abort(self) -> None:
        """Close at once. Its reader hears no more."""
        self._reader = None
        self._read.clear()
        self.open = False
        if self._throttle is not None:
            self._throttle.end()
        if self._transport is not None:
            self._transport.abort()

    # --- parsing ---

    def parse(self) -> None:
        """Parse what was read. A reader may abort the connection meanwhile."""
        read, self._read = self._read, []
        for self._at, data in read:
            if not self.open:
                return
            if self._reader is None:
                self.abort()  # nobody asked for this
                return
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError:
                reader, at = self._reader, self._at
                self.abort()
                if reader is not None:
                    reader.broken(at, "not HTTP")
                return
            if self._whole:
                self._let_go()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the few headers that matter."""
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.lower()
        elif name in ID_HEADERS:
            self._request_id = self._request_id or value.decode("latin-1")
        elif name == b"retry-after":
            self._retry_after = True
        elif name in (b"content-length", b"transfer-encoding"):
            self._bounded = True

    def on_headers_complete(self) -> None:
        """Pass the head on; an interim one (1xx) is nothing."""
        status = self._parser.get_status_code()
        if status < 200 or self._reader is None:
            return
        self._headed = True
        self._reader.head(status, self._content_type, self._request_id, self._retry_after)

    def on_body(self, data: bytes) -> None:
        """Pass a part of the body on."""
        if self._reader is not None:
            self._reader.feed(self._at, data)

    def on_message_begin(self) -> None:
        """Note an answer that nobody asked for, right behind the one that somebody did."""
        self._more = self._whole

    def on_message_complete(self) -> None:
        """Note that the answer is whole; an interim one is nothing."""
        if self._headed:
            self._whole = True
            self._keep = self._parser.should_keep_alive()
        else:
            self._clear()

    def _let_go(self) -> None:
        """Let go of the reader, and of the connection where it cannot be kept."""
        reader, self._reader = self._reader, None
        self.answers += 1
        # A service may answer before it has all of a request; the rest would be the next one's.
        if self._keep and self._throttle is None and not self._flushing and not self._more:
            self.idle_since = self._at
            self._pool.put(self)
        else:
            self.abort()
        if reader is not None:
            reader.complete(self._at)


def error_kind(error: BaseException) -> str:
    """Return a short name of a failed connection."""
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
