"""The engine side of the links: accepts routers, runs their calls, writes frames back.

Everything that calls write in one turn of the event loop goes to the socket in one `write`: an
engine step that yields a token for each of 64 streams costs one system call, not 64.
"""

from __future__ import annotations

import asyncio
import hmac
import io
from collections.abc import Callable
from typing import Protocol, cast

import msgspec

from serving.engine.allowance import SPENT, Spending
from serving.engine.calls import run_call
from serving.engine.interface import Engine, Tally
from serving.engine.strangers import Strangers
from serving.errors import EngineFailed, ServingError
from serving.observability.logs import Log, Sparing
from serving.wire.frames import MAX_PAYLOAD, FrameError, FrameReader, Kind, split_open
from serving.wire.messages import (
    PROTOCOL_VERSION,
    Allowance,
    Call,
    Fail,
    Head,
    Hello,
    Spent,
)
from serving.wire.outbox import Outbox

MAX_HELLO = 4096


_encode = msgspec.json.encode
_decode_call = msgspec.json.Decoder(Call).decode
_decode_allowance = msgspec.json.Decoder(Allowance).decode
_decode_hello = msgspec.json.Decoder(Hello).decode


class LinkReply:
    """Writes one call's answer into its link."""

    __slots__ = ("_link", "_stream")

    def __init__(self, link: Link, stream: int) -> None:
        self._link = link
        self._stream = stream

    @property
    def writable(self) -> bool:
        return self._link.writable.is_set()

    def head(self, head: Head) -> None:
        self._link.outbox.send(Kind.HEAD, self._stream, _encode(head))

    def data(self, data: bytes) -> None:
        self._link.outbox.send(Kind.DATA, self._stream, data)

    async def drained(self) -> None:
        if not self._link.writable.is_set():
            await self._link.writable.wait()


class SpendingReply(LinkReply):
    """The answer of a call that may make so many tokens only."""

    __slots__ = ("_spending",)

    def __init__(self, link: Link, stream: int, spending: Spending) -> None:
        super().__init__(link, stream)
        self._spending = spending

    def data(self, data: bytes) -> None:
        super().data(data)
        if self._spending.ending and not self._spending.stopped:
            self._spending.look()


class Acceptor(Protocol):
    """What a link needs of the server that accepted it."""

    engine: Engine
    token: str
    log: Log
    refused: Sparing
    strangers: Strangers
    on_call_end: Callable[[str], None]

    def welcome(self, link: Link) -> None:
        """Take a link whose HELLO is right. Raises FrameError: there are too many."""

    def forget(self, link: Link) -> None:
        """Take note that a link is closed."""

    async def failed(self, call: Call, error: EngineFailed) -> ServingError:
        """Return what a call fails with that ended in `error`."""

    def changed(self) -> None:
        """Take note that the load is another."""


class Link(asyncio.Protocol):
    """One router's connection."""

    def __init__(self, server: Acceptor) -> None:
        self._server = server
        self._reader = FrameReader(MAX_HELLO)
        self._calls: dict[int, asyncio.Task[None]] = {}
        # Those that may make so many tokens only.
        self._spending: dict[int, Spending] = {}
        # Of calls that are yet to be opened, what has come of their bodies.
        self._bodies: dict[int, io.BytesIO] = {}
        self.outbox = Outbox()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.router = ""
        self.writable = asyncio.Event()
        self.writable.set()

    @property
    def in_flight(self) -> int:
        return len(self._calls) + len(self._bodies)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports do not derive from asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self.outbox.open(self._transport)
        self._server.strangers.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, stream, payload in self._reader.feed(data):
                self._on_frame(kind, stream, payload)
        # msgspec has no error of its own for a string that is not UTF-8.
        except (FrameError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self.refuse(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        self._transport = None
        self.outbox.close()
        self.writable.set()
        self._bodies.clear()
        for task in list(self._calls.values()):
            task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def refuse(self, reason: str) -> None:
        """Close the link of what does not behave like a router; the log says why."""
        if self._transport is not None and not self._transport.is_closing():
            self._server.refused.warning("link_refused", router=self.router, reason=reason)
            # Not `close`, which waits for a peer that may not read.
            self._transport.abort()

    # frames

    def _on_frame(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == Kind.HELLO:
            self._on_hello(_decode_hello(payload))
        elif not self.router:
            raise FrameError("a frame before HELLO")
        elif kind == Kind.OPEN:
            self._on_open(stream, payload)
        elif kind == Kind.PART:
            self._on_part(stream, payload)
        elif kind == Kind.CANCEL:
            self._on_cancel(stream)
        elif kind == Kind.ALLOW:
            if (spending := self._spending.get(stream)) is not None:
                spending.allow(_decode_allowance(payload))
        else:
            raise FrameError(f"frame kind {kind}")

    def _on_cancel(self, stream: int) -> None:
        if (running := self._calls.get(stream)) is not None:
            # Not at once: OPEN and CANCEL may arrive together, and a task that is cancelled before
            # its first step never reaches the `finally` that removes its call.
            self._loop.call_soon(running.cancel)
        elif self._bodies.pop(stream, None) is not None:
            self.outbox.send(Kind.END, stream, _encode(Tally().used()))
            self._server.changed()

    def _on_part(self, stream: int, payload: bytes) -> None:
        body = self._bodies.get(stream)
        if body is None:
            body = self._bodies[stream] = io.BytesIO()
            self._server.changed()
        body.write(payload)
        if body.tell() > MAX_PAYLOAD:
            raise FrameError(f"a body of more than {MAX_PAYLOAD} bytes")

    def _on_open(self, stream: int, payload: bytes) -> None:
        encoded, body = split_open(payload)
        if (parts := self._bodies.pop(stream, None)) is not None:
            # Copies nothing: the OPENs of many large bodies may come in one read.
            body = parts.getvalue()
        try:
            call = _decode_call(encoded)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            # Only this call fails. A router of another version may send one that is not understood;
            # its other calls on this link are sound.
            self._server.log.error("call_not_understood", router=self.router, reason=str(error))
            fail = Fail(500, "internal_error", "the engine replica does not understand this call")
            self.outbox.send(Kind.FAIL, stream, _encode(fail))
            return
        self._calls[stream] = self._loop.create_task(self._run(stream, call, body))
        self._server.changed()

    def _on_hello(self, hello: Hello) -> None:
        if not hmac.compare_digest(hello.token.encode(), self._server.token.encode()):
            raise FrameError("wrong cluster token")
        if self.router:
            raise FrameError("a second HELLO")
        if hello.version != PROTOCOL_VERSION:
            raise FrameError(f"protocol version {hello.version}")
        self.router = hello.router or "router"
        self._reader.max_payload = MAX_PAYLOAD
        self._server.welcome(self)

    async def _run(self, stream: int, call: Call, body: bytes) -> None:
        """Run one call and send its one last frame, END or FAIL. Either says what it has used."""
        server = self._server
        tally = Tally()
        outcome = "error"
        spending = self._watch(stream, call, tally) if call.allowance else None
        reply = SpendingReply(self, stream, spending) if spending else LinkReply(self, stream)
        try:
            await run_call(server.engine, call, body, reply, tally)
            self.outbox.send(Kind.END, stream, _encode(tally.end()))
            outcome = "ok"
        except asyncio.CancelledError:
            # Either the router sent CANCEL and counts what was used, or the link is closed and the
            # outbox drops this frame.
            outcome = "cancelled"
            if spending is not None and spending.stopped:
                self.outbox.send(Kind.FAIL, stream, _encode(_fail(SPENT, tally)))
            else:
                self.outbox.send(Kind.END, stream, _encode(tally.used()))
        except ServingError as error:
            if isinstance(error, EngineFailed):
                error = await server.failed(call, error)
            outcome = "error" if error.status >= 500 else "rejected"
            retryable = error.status >= 500 and error.retryable
            self.outbox.send(Kind.FAIL, stream, _encode(_fail(error, tally, retryable)))
        except Exception as error:
            server.log.exception("call_failed", error, request_id=call.request_id)
            bug = ServingError("the engine replica failed on this request")
            self.outbox.send(Kind.FAIL, stream, _encode(_fail(bug, tally)))
        finally:
            del self._calls[stream]
            if spending is not None:
                del self._spending[stream]
                spending.close()
            server.changed()
            server.on_call_end(outcome)

    def _watch(self, stream: int, call: Call, tally: Tally) -> Spending:
        """Let a call go no further than its router allows."""

        def say(spent: Spent) -> None:
            self.outbox.send(Kind.SPENT, stream, _encode(spent))

        task = self._calls[stream]
        spending = Spending(tally, call.allowance, say, task.cancel)
        self._spending[stream] = spending
        return spending


def _fail(error: ServingError, tally: Tally, retryable: bool = False) -> Fail:
    return Fail(
        error.status,
        error.code,
        error.message,
        error.param,
        retryable,
        error.retry_after_s,
        tally.prompt_tokens,
        tally.completion_tokens,
        tally.cached_tokens,
        tally.images,
    )
