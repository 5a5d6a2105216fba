"""The router side of a link: one connection to one engine replica, many requests on it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from typing import cast

import msgspec

from serving.errors import EngineFailed, ServingError, error_class
from serving.observability.logs import Log
from serving.router.answer import Answer, AttemptFailed
from serving.router.uploads import Uploads
from serving.wire.address import host_port
from serving.wire.body import Body, whole
from serving.wire.fingerprint import Doubt, Fingerprint
from serving.wire.frames import FrameError, FrameReader, Kind, open_payload
from serving.wire.messages import Call, End, Fail, Head, Hello, Load, Spent, Welcome
from serving.wire.outbox import Outbox

# A replica reports its load at least once a second. After three times as long without a byte it
# hangs, or its machine is gone.
SILENCE_S = 3.0
CONNECT_TIMEOUT_S = 2.0
RECONNECT_MIN_S = 0.05
RECONNECT_MAX_S = 1.0
# How long a replica has to say what a call that it was told to stop has used, in seconds: an engine
# step and the way back.
CLOSING_S = 2.0

_DATA = int(Kind.DATA)  # compared for every token; an enum member costs more

_encode = msgspec.json.encode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_end = msgspec.json.Decoder(End).decode
_decode_spent = msgspec.json.Decoder(Spent).decode
_decode_fail = msgspec.json.Decoder(Fail).decode
_decode_load = msgspec.json.Decoder(Load).decode
_decode_suspects = msgspec.json.Decoder(tuple[Fingerprint, ...]).decode
_decode_doubts = msgspec.json.Decoder(tuple[Doubt, ...]).decode
_decode_welcome = msgspec.json.Decoder(Welcome).decode


class ReplicaLink(asyncio.Protocol):
    """A replica as this router sees it: its connection, its load, its requests.

    Args:
        replica: the replica's ID.
        host, port: where its engine server accepts links.
        on_change: called when the link comes up, goes down or starts to drain.
        on_adapter: called with the link, an adapter's ID and whether the replica holds it now.
        on_suspects: called with the requests that the replica says its engine died of.
        on_doubts: called with those that ran as it died, if it cannot say which.
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
        on_suspects: Callable[[tuple[Fingerprint, ...]], None] = lambda _: None,
        on_doubts: Callable[[tuple[Doubt, ...]], None] = lambda _: None,
    ) -> None:
        self.replica = replica
        self.address = (host, port)
        self._hello = Hello(router, token)
        self._log = log.bind(replica=replica)
        self._on_change = on_change
        self._on_adapter = on_adapter
        self._on_suspects = on_suspects
        self._on_doubts = on_doubts
        self._streams: dict[int, Answer] = {}
        # Answers to calls that the replica was told to stop and has not said its last word on.
        self._closing: dict[int, Answer] = {}
        self._numbers = itertools.count(1)
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._outbox = Outbox()
        self._uploads = Uploads(self._outbox, self._log, self._body_lost)
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        self._closed = False
        self._delay_s = RECONNECT_MIN_S
        self._lost = asyncio.Event()
        self.welcome: Welcome | None = None
        self.load = Load()
        # Requests other routers have on this replica, as of its last report.
        self.others = 0
        # Held as of the last report, and those of calls sent since, which no report has yet.
        self._adapters: frozenset[str] = frozenset()
        self._task = self._loop.create_task(self._stay_connected())

    @property
    def up(self) -> bool:
        """True if requests may be sent here."""
        return self.welcome is not None and not self.load.draining

    @property
    def connected(self) -> bool:
        return self.welcome is not None

    @property
    def state(self) -> str:
        """As in `/status`."""
        return "ready" if self.up else "draining" if self.connected else "connecting"

    @property
    def in_flight(self) -> int:
        """Requests of this router on the replica."""
        return len(self._streams)

    @property
    def busy(self) -> int:
        """Requests on the replica: this router's as of now, the other routers' as last reported.

        For each request that this router has added since that report, one more is assumed of every
        other router: in a burst all do alike, and a replica whose report is late would look idle to
        all of them at once.
        """
        own = len(self._streams)
        unreported = own - self.load.yours
        if unreported > 0:
            return self.others + own + unreported * (self.load.routers - 1)
        return self.others + own

    def open(self, call: Call, body: Body = b"") -> Answer:
        """Send one call; a body that is on disk is sent while the answer is waited for.

        Raises:
            AttemptFailed: the replica is not up (retryable).
        """
        if not self.up or self.welcome is None:
            raise AttemptFailed(EngineFailed("the replica went away"), retryable=True)
        if not self.welcome.takes_parts:  # it is older than this router
            body = whole(body)
        in_parts = None if isinstance(body, bytes) else body
        payload = open_payload(_encode(call), body if isinstance(body, bytes) else b"")
        stream = next(self._numbers) & 0xFFFFFFFF
        answer = Answer(self, stream)
        self._streams[stream] = answer
        if call.adapter is not None and call.adapter.id not in self._adapters:
            self._set_adapters(self._adapters | {call.adapter.id})
        if in_parts is None:
            self._outbox.send(Kind.OPEN, stream, payload)
        else:
            self._uploads.send(stream, payload, in_parts)
        return answer

    def cancel(self, stream: int) -> None:
        """Tell the replica to stop a call. The answer still gets the replica's last word, what was
        used, if that comes within `CLOSING_S`."""
        answer = self._streams.pop(stream, None)
        if answer is not None:
            self._uploads.cancel(stream)
            self._outbox.send(Kind.CANCEL, stream)
            self._closing[stream] = answer
            self._loop.call_later(CLOSING_S, self._closing.pop, stream, None)

    async def close(self) -> None:
        """Disconnect for good."""
        self._closed = True
        self._task.cancel()
        if self._transport is not None:
            self._transport.close()
        await asyncio.wait([self._task])

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
        """Return when the connection is lost. One that is silent for `SILENCE_S` is cut."""
        look_s = SILENCE_S / 3
        while not self._lost.is_set():
            began = time.monotonic()
            try:
                async with asyncio.timeout(look_s):
                    await self._lost.wait()
            except TimeoutError:
                if time.monotonic() - began > 2 * look_s:
                    # This process slept: what the replica sent meanwhile is still unread.
                    self._heard = time.monotonic()
                elif time.monotonic() - self._heard > SILENCE_S and self._transport is not None:
                    self._log.warning("replica_silent", seconds=SILENCE_S)
                    self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._outbox.open(self._transport)
        self._reader = FrameReader()
        self._heard = time.monotonic()
        self._lost.clear()
        self._outbox.send(Kind.HELLO, 0, _encode(self._hello))

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

    def pause_writing(self) -> None:
        self._uploads.pause()

    def resume_writing(self) -> None:
        self._uploads.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._uploads.close()
        was_up = self.welcome is not None
        self._transport = None
        self._outbox.close()
        self.welcome = None
        self.load = Load()
        self.others = 0
        self._set_adapters(frozenset())
        self._lost.set()
        streams, self._streams = self._streams, {}
        closing, self._closing = self._closing, {}
        for answer in (*streams.values(), *closing.values()):
            answer.on_fail(
                AttemptFailed(
                    EngineFailed("the replica that worked on this request died"), retryable=True
                )
            )
        if was_up:
            self._log.warning("replica_lost", streams=len(streams))
            self._on_change()

    def _body_lost(self, stream: int) -> None:
        """A body that was being sent cannot be read any more."""
        if (answer := self._streams.get(stream)) is not None:
            lost = ServingError("internal error; the log has its cause")
            answer.on_fail(AttemptFailed(lost, retryable=False, used=End()))
            self.cancel(stream)

    # frames

    def _on_stream_frame(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == Kind.HEAD:
            if (answer := self._streams.get(stream)) is not None:
                answer.on_head(_decode_head(payload))
            return
        if kind == Kind.SPENT:
            answer = self._streams.get(stream)
            if answer is not None and answer.on_spent is not None:
                allowance = answer.on_spent(_decode_spent(payload))
                self._outbox.send(Kind.ALLOW, stream, _encode(allowance))
            return
        answer = self._streams.pop(stream, None) or self._closing.pop(stream, None)
        if answer is None:  # its last word comes too late
            return
        if kind == Kind.END:
            answer.on_end(_decode_end(payload))
        elif kind == Kind.FAIL:
            fail = _decode_fail(payload)
            error = error_class(fail.status, fail.code)(
                fail.message, param=fail.param, retry_after_s=fail.retry_after_s
            )
            used = End(
                prompt_tokens=fail.prompt_tokens,
                completion_tokens=fail.completion_tokens,
                cached_tokens=fail.cached_tokens,
                images=fail.images,
            )
            answer.on_fail(AttemptFailed(error, retryable=fail.retryable, used=used))
        else:
            raise FrameError(f"frame kind {kind}")

    def _on_link_frame(self, kind: int, payload: bytes) -> None:
        if kind == Kind.LOAD:
            self._on_load(_decode_load(payload))
        elif kind == Kind.SUSPECTS:
            self._on_suspects(_decode_suspects(payload))
        elif kind == Kind.DOUBTS:
            self._on_doubts(_decode_doubts(payload))
        elif kind == Kind.WELCOME:
            welcome = _decode_welcome(payload)
            if welcome.replica != self.replica:
                # A dead replica's port may belong to another replica by now, even of another model.
                raise FrameError(f"replica {welcome.replica} answers at this address")
            self.welcome = welcome
            # Only now: a replica that accepts the connection and then refuses it must not be asked
            # again without a pause.
            self._delay_s = RECONNECT_MIN_S
            self._on_load(self.welcome.load)
            self._log.info("replica_found", address=host_port(*self.address))
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
