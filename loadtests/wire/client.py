"""Sends requests over kept connections, as SDKs do, but never twice: a retry hides what happened.

A request takes the connection that was used last, or opens one; a connection is dropped after 5 s
without use, as httpx does it, on which OpenAI's SDK stands. There is no upper limit of
connections, since one would make requests wait in the client.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence

from loadtests.clock import Clock
from loadtests.load.planned import Planned
from loadtests.measure.record import Record
from loadtests.wire.answer import Answer
from loadtests.wire.bodies import Said, request
from loadtests.wire.connection import Connection, Inbox, error_kind
from loadtests.wire.service import Address, Service

IDLE_S = 5.0
# The kernel doubles it. A slow reader with the usual buffers would have read megabytes at once.
SLOW_RCVBUF = 4096
# The machine's own limits: a run that meets them measured the client.
CLIENT_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}

Done = Callable[[Record, str], None]


class Exchange:
    """One request and its answer, from the moment the client begins on it."""

    __slots__ = (
        "_answer",
        "_client",
        "_connect",
        "_connection",
        "_done",
        "_planned",
        "_timers",
        "record",
        "request",
    )

    def __init__(
        self,
        client: Client,
        planned: Planned,
        record: Record,
        content: bytes,
        done: Done,
        keep_text: bool,
    ) -> None:
        self.record = record
        self.request = content
        self._planned = planned
        self._client = client
        self._done: Done | None = done
        self._connection: Connection | None = None
        self._connect: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        keep = keep_text or planned.reference is not None
        self._answer = Answer(record, planned.endpoint, keep)

    def begin(self) -> None:
        """Send it, on a connection of its own where it reads slowly."""
        client, planned = self._client, self._planned
        later = client.loop.call_later
        self._timers.append(later(client.timeout_s, self._timed_out))
        if planned.cancel_after_s is not None:
            self._timers.append(later(planned.cancel_after_s, self._leave))
        slow = planned.read_bytes_per_s
        kept = client.take() if slow is None else None
        self.record.begun_s = self.record.sent_s = client.clock.now()
        if kept is not None:
            self._connection = kept
            kept.send(self.request, self)
        else:
            self._connect = client.loop.create_task(self._open(slow))

    async def _open(self, slow: float | None) -> None:
        try:
            self._connection = await self._client.connect(slow)
        except (OSError, ssl.SSLError) as error:
            kind = connect_kind(error)
            self._client.limited += kind.startswith("client: ")
            self.broken(self._client.clock.now(), kind)
            return
        finally:
            self._connect = None
        self._connection.send(self.request, self)

    # --- what the connection says ---

    def sent(self, at: float) -> None:
        """The kernel has the request."""
        self.record.sent_s = at

    def head(self, status: int, content_type: bytes, request_id: str, retry_after: bool) -> None:
        """The status line and headers are here."""
        self._answer.head(status, content_type, request_id, retry_after)

    def feed(self, at: float, data: bytes) -> None:
        """A part of the body came."""
        answer = self._answer
        answer.feed(at, data)
        limit = self._planned.cancel_after_tokens
        if limit is not None and answer.events >= limit and not answer.done:
            self._leave()

    def complete(self, at: float) -> None:
        """The response is whole."""
        self._connection = None
        self._answer.complete(at)
        self._finish()

    def broken(self, at: float, kind: str) -> None:
        """It broke off."""
        self._connection = None
        self._answer.broken(at, kind)
        self._finish()

    # --- how else it ends ---

    def _leave(self) -> None:
        if self._done is None:
            return
        self._let_go()
        self._answer.cancelled(self._client.clock.now())
        self._finish()

    def _timed_out(self) -> None:
        where = "in the answer" if self.record.status else "before the answer"
        if self._connect is not None:
            where = "while connecting"
        self._let_go()
        self._answer.broken(self._client.clock.now(), f"timeout {where}")
        self._finish()

    def abandon(self) -> None:
        """End it without a word: the run was interrupted."""
        self._done = None
        self._let_go()
        self._finish()

    def _let_go(self) -> None:
        if self._connect is not None:
            self._connect.cancel()
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _finish(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._client.ended(self)
        done, self._done = self._done, None
        if done is not None:
            if self._planned.reference is not None:
                self._answer.check(self._planned.reference)
            done(self.record, self._answer.text)


class Client:
    """Everything that is sent to one service from one process."""

    def __init__(self, service: Service, clock: Clock, timeout_s: float) -> None:
        """`timeout_s` is for a whole request, from when it is begun."""
        self.loop = asyncio.get_running_loop()
        self.clock = clock
        self.timeout_s = timeout_s
        self.limited = 0  # requests that failed for a limit of this machine
        self.connections = 0  # opened so far
        self._service = service
        self._inbox = Inbox(self.loop)
        self._idle: dict[Connection, None] = {}  # in the order of their last use
        self._running: set[Exchange] = set()

    def prepare(self, planned: Planned, history: Sequence[Said] = ()) -> bytes:
        """Return the request's bytes, which may be made long before it is due."""
        return request(self._service, planned, history)

    def send(
        self,
        planned: Planned,
        record: Record,
        content: bytes,
        done: Done,
        keep_text: bool = False,
    ) -> None:
        """Send a request. `done` is called once, with its record and, if kept, its text."""
        exchange = Exchange(self, planned, record, content, done, keep_text)
        self._running.add(exchange)
        exchange.begin()

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._running)

    def ended(self, exchange: Exchange) -> None:
        """Forget an exchange that has ended."""
        self._running.discard(exchange)

    def abandon(self) -> int:
        """End all requests in flight without records; return how many they were."""
        running = list(self._running)
        for exchange in running:
            exchange.abandon()
        return len(running)

    def close(self) -> None:
        """Close the kept connections, and end what is in flight."""
        self.abandon()
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()

    # --- connections ---

    def take(self) -> Connection | None:
        """Return the connection that was used last, if one is still good."""
        oldest = self.clock.now() - IDLE_S
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.open and connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    def put(self, connection: Connection) -> None:
        """Keep a connection."""
        self._idle[connection] = None

    def drop(self, connection: Connection) -> None:
        """A connection has ended."""
        self._idle.pop(connection, None)

    async def connect(self, slow_bytes_per_s: float | None) -> Connection:
        """Open a connection, to the first address that takes it. Raises OSError."""
        addresses = await self._service.addresses()
        for number, address in enumerate(addresses):
            try:
                connection = await self._connect_to(address, slow_bytes_per_s)
            except OSError:
                if number + 1 == len(addresses):
                    raise
                continue
            self._service.prefer(address)
            self.connections += 1
            return connection
        raise OSError(errno.EADDRNOTAVAIL, "the name has no address")

    async def _connect_to(self, address: Address, slow: float | None) -> Connection:
        family, where = address
        tls = self._service.tls
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if slow is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_RCVBUF)
            await self.loop.sock_connect(sock, where)
            past = None if tls else sock
            _, connection = await self.loop.create_connection(
                lambda: Connection(self.clock, self._inbox, self, past, slow),
                sock=sock,
                ssl=tls,
                server_hostname=self._service.host if tls else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection


def connect_kind(error: OSError) -> str:
    """Return what kept a connection from being opened."""
    if error.errno in CLIENT_LIMITS and not isinstance(error, socket.gaierror):
        return f"client: {(error.strerror or 'limit').lower()}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "connect: certificate"
    if isinstance(error, ssl.SSLError):
        return "connect: TLS"
    if isinstance(error, socket.gaierror):
        return "connect: unknown name"
    return f"connect: {error_kind(error)}"
