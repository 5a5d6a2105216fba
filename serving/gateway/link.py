"""The router side of a link: one connection to one engine replica, many requests on it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from typing import Protocol, cast

import msgspec

from serving.engine.frames import FrameError, FrameReader, Kind, frame, open_payload
from serving.engine.protocol import Call, End, Fail, Head, Hello, Load, Welcome
from serving.errors import EngineFailed, ServingError, error_class
from serving.observability.logs import Log

# A replica reports its load at least once a second; three times that without a byte and it
# hangs or its machine is gone.
SILENCE_S = 3.0
CONNECT_TIMEOUT_S = 2.0
RECONNECT_MIN_S = 0.05
RECONNECT_MAX_S = 1.0
# What a slow client may leave unread before its request is given up, in bytes.
MAX_UNREAD = 4 * 1024 * 1024

_DATA = int(Kind.DATA)  # compared for every token; an enum member costs more

_encode = msgspec.json.encode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_end = msgspec.json.Decoder(End).decode
_decode_fail = msgspec.json.Decoder(Fail).decode
_decode_load = msgspec.json.Decoder(Load).decode
_decode_welcome = msgspec.json.Decoder(Welcome).decode


class Failed(Exception):
    """A request ended badly on its replica. `retryable`: nothing was produced yet."""

    def __init__(self, error: ServingError, *, retryable: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.retryable = retryable


class Sender(Protocol):
    """Where the request of an answer was sent: it can be told to stop."""

    def cancel(self, stream: int) -> None: ...


class Answer:
    """What comes back for one request: `wait`, then look at `head`, `take`, `end` and `failed`.

    Once its stream is under way, the reader may set `forward`, which then gets the bytes of each
    read from the link where they arrive, and says whether it took them. What nobody takes is kept
    for `take`, joined, so a slow client costs fewer events, not more.
    """

    __slots__ = (
        "_due",
        "_parts",
        "_sender",
        "_size",
        "_stream",
        "_waiter",
        "end",
        "failed",
        "forward",
        "head",
        "on_taken",
    )

    def __init__(self, sender: Sender, stream: int) -> None:
        self._sender = sender
        self._stream = stream
        self._parts: list[bytes] = []
        self._size = 0
        self._due = False
        self._waiter: asyncio.Future[None] | None = None
        self.head: Head | None = None
        self.end: End | None = None
        self.failed: Failed | None = None
        self.forward: Callable[[bytes, float], bool] | None = None
        # Called when what was kept has been taken.
        self.on_taken: Callable[[], None] | None = None

    @property
    def unread(self) -> int:
        """Bytes that nobody has taken yet."""
        return self._size

    async def wait(self) -> None:
        """Wait until there is something to read: a head, bytes, an end or a failure."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    @property
    def ready(self) -> bool:
        """Whether there are bytes, an end or a failure to act on."""
        return bool(self._parts) or self.end is not None or self.failed is not None

    def take(self) -> bytes:
        """All bytes that have arrived and were not taken yet."""
        parts = self._parts
        if not parts:
            return b""
        self._parts = []
        self._size = 0
        if self.on_taken is not None:
            self.on_taken()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abandon(self) -> None:
        """Tell the replica to stop; a no-op after the end."""
        self._sender.cancel(self._stream)

    # called by the link

    def on_head(self, head: Head) -> None:
        self.head = head
        self.wake()

    def on_data(self, data: bytes, due: list[Answer]) -> None:
        """Keep `data`; `deliver` is due when everything of this read has come."""
        self._parts.append(data)
        self._size += len(data)
        if not self._due:
            self._due = True
            due.append(self)

    def deliver(self, now: float) -> None:
        """Pass on what has come; `now` is when, in `time.monotonic` seconds."""
        self._due = False
        if self.end is not None or self.failed is not None:
            return  # the reader has been woken and takes it together with the end
        parts = self._parts
        if self.forward is not None and self.forward(
            parts[0] if len(parts) == 1 else b"".join(parts), now
        ):
            parts.clear()
            self._size = 0
            return
        # One part may be larger: a whole answer comes in one.
        if self._size > MAX_UNREAD and len(parts) > 1:
            self._sender.cancel(self._stream)
            self.on_fail(Failed(EngineFailed("the client reads too slowly"), retryable=False))
        self.wake()

    def on_end(self, end: End) -> None:
        self.end = end
        self.wake()

    def on_fail(self, failed: Failed) -> None:
        self.failed = failed
        self.wake()

    def wake(self) -> None:
        """Let `wait` return although nothing has come: time to look at the clock."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class ReplicaLink(asyncio.Protocol):
    """A replica as this router sees it: its connection, its load, its requests.

    Args:
        replica: the replica's ID.
        host, port: where its engine server accepts links.
        on_change: called when the link comes up, goes down or starts to drain.
        on_adapter: called with the link, an adapter's ID and whether the replica holds it now.
    """

    def __init__(
        self,
        replica: str,
        host: str,
        port: int,
        *,
        router: str,
        token: str,
        log: Log,
        on_change: Callable[[], None],
        on_adapter: Callable[[ReplicaLink, str, bool], None],
    ) -> None:
        self.replica = replica
        self.address = (host, port)
        self._hello = Hello(router, token)
        self._log = log.bind(replica=replica)
        self._on_change = on_change
        self._on_adapter = on_adapter
        self._streams: dict[int, Answer] = {}
        self._numbers = itertools.count(1)
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        self._closed = False
        self._delay_s = RECONNECT_MIN_S
        self._lost = asyncio.Event()
        self.welcome: Welcome | None = None
        self.load = Load()
        # Requests other routers have on this replica, as of its last report.
        self.others = 0
        # As of the last report, and those sent there since, which it cannot know yet.
        self._adapters: frozenset[str] = frozenset()
        self._task = self._loop.create_task(self._stay_connected())

    @property
    def up(self) -> bool:
        """Whether requests may be sent here."""
        return self.welcome is not None and not self.load.draining

    @property
    def connected(self) -> bool:
        return self.welcome is not None

    @property
    def state(self) -> str:
        """For people."""
        return "ready" if self.up else "draining" if self.connected else "connecting"

    @property
    def in_flight(self) -> int:
        """Requests of this router on the replica."""
        return len(self._streams)

    @property
    def busy(self) -> int:
        """Requests on the replica: our own now, the others' as last reported, and for what we have
        added since that report as much for each other router. In a burst they do as we do, and a
        replica whose reports are late would else look idle to all of them at once."""
        own = len(self._streams)
        unreported = own - self.load.yours
        if unreported > 0:
            return self.others + own + unreported * (self.load.routers - 1)
        return self.others + own

    def open(self, call: Call, body: bytes = b"") -> Answer:
        """Send one call.

        Raises:
            Failed: the link is down (retryable).
        """
        if not self.up:
            raise Failed(EngineFailed("the replica went away"), retryable=True)
        payload = open_payload(_encode(call), body)
        stream = next(self._numbers) & 0xFFFFFFFF
        answer = Answer(self, stream)
        self._streams[stream] = answer
        if call.adapter is not None and call.adapter.id not in self._adapters:
            self._set_adapters(self._adapters | {call.adapter.id})
        self._send(Kind.OPEN, stream, payload)
        return answer

    def cancel(self, stream: int) -> None:
        if self._streams.pop(stream, None) is not None:
            self._send(Kind.CANCEL, stream)

    async def close(self) -> None:
        """Disconnect for good."""
        self._closed = True
        self._task.cancel()
        if self._transport is not None:
            self._transport.close()
        await asyncio.wait([self._task])

    def _send(self, kind: int, stream: int, payload: bytes = b"") -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame(kind, stream, payload))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    async def _stay_connected(self) -> None:
        while not self._closed:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._loop.create_connection(lambda: self, *self.address)
            except (OSError, TimeoutError):
                pass
            else:
                await self._watch()
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.5))
            self._delay_s = min(RECONNECT_MAX_S, self._delay_s * 2)

    async def _watch(self) -> None:
        """Until the connection is lost, which silence counts as."""
        look_s = SILENCE_S / 3
        while not self._lost.is_set():
            began = time.monotonic()
            try:
                async with asyncio.timeout(look_s):
                    await self._lost.wait()
            except TimeoutError:
                if time.monotonic() - began > 2 * look_s:
                    # It was us who slept: what the replica said meanwhile is still to be read.
                    self._heard = time.monotonic()
                elif time.monotonic() - self._heard > SILENCE_S and self._transport is not None:
                    self._log.warning("replica_silent", seconds=SILENCE_S)
                    self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._reader = FrameReader()
        self._heard = time.monotonic()
        self._lost.clear()
        self._out.clear()
        self._send(Kind.HELLO, 0, _encode(self._hello))

    def data_received(self, data: bytes) -> None:
        self._heard = now = time.monotonic()
        streams = self._streams
        due: list[Answer] = []
        try:
            for kind, stream, payload in self._reader.feed(data):
                if kind == _DATA:
                    if (answer := streams.get(stream)) is not None:
                        answer.on_data(payload, due)
                elif stream:
                    self._on_stream_frame(kind, stream, payload)
                else:
                    self._on_link_frame(kind, payload)
        except (FrameError, msgspec.MsgspecError) as error:
            self._log.error("link_broken", reason=str(error))
            if self._transport is not None:
                self._transport.abort()
        finally:
            for answer in due:
                answer.deliver(now)

    def connection_lost(self, exc: Exception | None) -> None:
        was_up = self.welcome is not None
        self._transport = None
        self.welcome = None
        self.load = Load()
        self.others = 0
        self._set_adapters(frozenset())
        self._lost.set()
        streams, self._streams = self._streams, {}
        for answer in streams.values():
            answer.on_fail(
                Failed(
                    EngineFailed("the replica that worked on this request died"),
                    retryable=answer.head is None,
                )
            )
        if was_up:
            self._log.warning("replica_lost", streams=len(streams))
            self._on_change()

    # frames

    def _on_stream_frame(self, kind: int, stream: int, payload: bytes) -> None:
        answer = self._streams.get(stream)
        if answer is None:  # cancelled, and the replica did not know yet
            return
        if kind == Kind.HEAD:
            answer.on_head(_decode_head(payload))
            return
        del self._streams[stream]
        if kind == Kind.END:
            answer.on_end(_decode_end(payload))
        elif kind == Kind.FAIL:
            fail = _decode_fail(payload)
            error = error_class(fail.status, fail.code)(
                fail.message, param=fail.param, retry_after_s=fail.retry_after_s
            )
            answer.on_fail(Failed(error, retryable=fail.retryable))
        else:
            raise FrameError(f"frame kind {kind}")

    def _on_link_frame(self, kind: int, payload: bytes) -> None:
        if kind == Kind.LOAD:
            self._on_load(_decode_load(payload))
        elif kind == Kind.WELCOME:
            welcome = _decode_welcome(payload)
            if welcome.replica != self.replica:
                # A port that a dead replica left may be another's by now, of another model.
                raise FrameError(f"replica {welcome.replica} answers at this address")
            self.welcome = welcome
            # Only now: a replica that accepts and refuses us must not be asked without a pause.
            self._delay_s = RECONNECT_MIN_S
            self._on_load(self.welcome.load)
            self._log.info("replica_found", address=f"{self.address[0]}:{self.address[1]}")
            self._on_change()

    def _on_load(self, load: Load) -> None:
        drains = load.draining and not self.load.draining
        self.load = load
        self.others = load.in_flight - load.yours
        self._set_adapters(frozenset(load.adapters))
        if drains:
            self._on_change()

    def _set_adapters(self, adapters: frozenset[str]) -> None:
        before, self._adapters = self._adapters, adapters
        if before != adapters:
            for adapter in adapters ^ before:
                self._on_adapter(self, adapter, adapter in adapters)
