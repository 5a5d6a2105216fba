"""One client's connection: requests are read one after the other and answered in that order.

What a client sends ahead of an answer is put aside unread, so that the socket is read on and its
end is noticed, whatever stands in front of it. Whoever sends more than `MAX_AHEAD_BYTES` ahead is
refused after the answer, and nothing of it is kept.

What is refused here (`_refuse`) never reaches the app: it gets one error in the API's format, is
told to `on_refused`, and the connection is closed. The socket is then read on for a moment (RFC
9112, section 9.6): closed with unread bytes, TCP would reset the connection and the client might
never see why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from starlette.types import ASGIApp

from serving.errors import InvalidRequest, RequestTimeout, ServingError
from serving.http.body import Chunked, Counted
from serving.http.books import Books
from serving.http.crowd import Crowd
from serving.http.exchange import HIGH_WATER_BYTES, Exchange
from serving.http.head import Head, HeadReader
from serving.http.patience import Patience, StallWatch
from serving.http.refusal import refusal
from serving.http.request import Headers
from serving.http.scope import connection_scope, request_scope

# Of requests that wait for the answer of one before them.
MAX_AHEAD_BYTES = 64 * 1024


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        books: the server's; this one adds and removes itself and its tasks.
        crowd: the server's connections again, as to which goes when there are too many.
        on_refused: called with each answer to what never reached the app.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        books: Books,
        crowd: Crowd,
        patience: Patience,
        on_refused: Callable[[ServingError], None],
    ) -> None:
        self._app = app
        self._books = books
        self._patience = patience
        self._crowd = crowd
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, None)
        self._scope: dict[str, Any] = {}
        # The request that is being read: first its head, then its body.
        self._reader: HeadReader | None = None
        self._body: Counted | Chunked | None = None
        # The request that is being answered.
        self._exchange: Exchange | None = None
        self._ahead = bytearray()
        # More than that came ahead: what follows is lost, so it ends in this error.
        self._excess: ServingError | None = None
        # What comes is not read any more.
        self._deaf = False
        self._eof = False
        # Between two requests.
        self._idle = False
        self._reading = True
        self._writable: asyncio.Event = asyncio.Event()
        self._writable.set()
        # One at a time: for the headers, for the next request, or for the end.
        self._timer: asyncio.TimerHandle | None = None
        self._stall = cast(StallWatch, None)

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._books.connections.add(self)
        self._stall = StallWatch(self._transport, self._patience.stall_s)
        self._scope = connection_scope(transport)
        if self._books.leaving:
            self._wait_leaving(self._patience.leaving_s)
        else:
            self._expect_head()
        self._crowd.enters(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._books.connections.discard(self)
        self._crowd.gone(self)
        self._set_timer()
        self._stall.stop()
        if self._exchange is not None:
            self._exchange.on_lost()
        self._deaf = True
        self._ahead.clear()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._set_timer()
        if not self._deaf and self._excess is None:
            self._read(data)

    def eof_received(self) -> bool:
        """The client has closed, or only its sending side; which of the two, TCP does not say.
        True keeps the other side open."""
        self._eof = True
        if self._exchange is not None:
            self._exchange.on_left()
            return True
        if not self._deaf and self._reader is not None and self._reader.begun:
            self._refuse(InvalidRequest("the client closed before its request was complete"))
        return False

    def pause_writing(self) -> None:
        self._writable.clear()
        self._stall.start()
        if self._exchange is not None:
            self._exchange.on_writable(False)

    def resume_writing(self) -> None:
        self._writable.set()
        self._stall.stop()
        if self._transport.is_closing():
            self._stall.start()
        if self._exchange is not None:
            self._exchange.on_writable(True)

    def leave(self, idle_s: float) -> None:
        """The server is being closed: end with the answer to the request that runs, or to the next
        one. If none comes in `idle_s` seconds, end without.

        Whoever has been told that this connection stays may send on it at any moment, and a request
        that meets its end is lost (RFC 9112, section 9.6). So it ends where the client has been
        told, and only one that is not used ends unsaid.
        """
        if self._exchange is not None:
            if not self._exchange.started:
                self._exchange.keep_alive = False
        elif not self._deaf and (self._reader is None or not self._reader.begun):
            self._wait_leaving(idle_s)

    def _wait_leaving(self, idle_s: float) -> None:
        self._idle = True
        self._set_timer(idle_s, partial(self._hang_up, linger=True))

    def give_up(self, why: ServingError) -> None:
        """Make room for another connection. Between two requests nothing is said: the client would
        take it for the answer to its next request."""
        if self._idle:
            self._close()
        else:
            self._refuse(why)

    def abort(self) -> None:
        self._transport.abort()

    # the exchange

    @property
    def write(self) -> Callable[[bytes], None]:
        return self._transport.write

    @property
    def paused(self) -> bool:
        return not self._writable.is_set()

    @property
    def default_headers(self) -> Headers:
        return self._books.headers

    async def drained(self) -> None:
        await self._writable.wait()

    def resume_reading(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def response_ended(self, exchange: Exchange) -> None:
        """Go on with the next request, or close."""
        self._exchange = None
        if self._transport.is_closing():
            return
        self._crowd.waits(self)
        if not exchange.keep_alive:
            # With the request complete and nothing behind it, nothing unread is in the way.
            self._hang_up(linger=self._body is not None or bool(self._ahead) or self._deaf)
            return
        if self._ahead:
            data, self._ahead = bytes(self._ahead), bytearray()
            self._read(data)
        if self._transport.is_closing() or self._deaf:
            return
        if self._exchange is not None:
            if self._excess is not None and self._body is not None:
                self._exchange.on_fault(self._excess)
        elif self._excess is not None:
            self._refuse(self._excess)
        elif self._eof:
            self.eof_received()
            self._close()
        elif self._timer is None:
            if self._books.leaving:
                self._wait_leaving(self._patience.leaving_s)
            else:
                self._idle = True
                self._set_timer(self._patience.keep_alive_s, self._close)

    def app_ended(self, exchange: Exchange, failure: ServingError) -> None:
        """The app has returned. `failure` is told to a client that is there and has no answer."""
        if exchange.ended or exchange.lost:
            return
        self._exchange = None
        if self._transport.is_closing():
            return
        if not exchange.started and not exchange.left:
            self._say_last(failure)
        elif self.paused:
            self._transport.abort()
        else:
            # Where the body is not finished, that shows it.
            self._close()

    # reading

    def _read(self, data: bytes) -> None:
        try:
            while data and not self._deaf:
                if self._body is not None:
                    data = self._read_body(self._body, data)
                elif self._exchange is not None:
                    self._put_aside(data)
                    return
                else:
                    data = self._read_head(data)
        except ServingError as error:
            if self._exchange is None:
                self._refuse(error)
            else:
                self._deaf = True
                self._exchange.on_fault(error)

    def _read_head(self, data: bytes) -> bytes:
        reader = self._reader
        if reader is None:
            reader = self._reader = HeadReader()
        rest = reader.feed(data)
        if reader.head is None:
            if self._timer is None:
                self._expect_head()
            return b""
        self._reader = None
        self._set_timer()
        self._begin(reader.head)
        return rest

    def _begin(self, head: Head) -> None:
        self._crowd.works(self)
        self._exchange = exchange = Exchange(head, self)
        if self._books.leaving:
            exchange.keep_alive = False
        if head.length is None:
            self._body = Chunked()
        elif head.length:
            self._body = Counted(head.length)
        else:
            exchange.on_received()
        if self._eof:
            exchange.on_left()
        run = exchange.run(self._app, request_scope(self._scope, head, exchange.write))
        task = self._loop.create_task(run)
        self._books.tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _read_body(self, body: Counted | Chunked, data: bytes) -> bytes:
        exchange = cast(Exchange, self._exchange)
        part, rest = body.feed(data)
        exchange.on_body(part)
        if body.done:
            self._body = None
            exchange.on_received()
        elif exchange.buffered > HIGH_WATER_BYTES and self._reading:
            self._reading = False
            self._transport.pause_reading()
        return rest

    def _put_aside(self, data: bytes) -> None:
        if len(self._ahead) + len(data) <= MAX_AHEAD_BYTES:
            self._ahead += data
            return
        self._excess = InvalidRequest(
            f"more than {MAX_AHEAD_BYTES} bytes came before the request before them was answered; "
            "send a request after the answer to the one before it"
        )

    # ending

    def _refuse(self, error: ServingError) -> None:
        """Answer what never reaches the app, and close."""
        if not self._transport.is_closing():
            self._on_refused(error)
            self._say_last(error)

    def _say_last(self, error: ServingError) -> None:
        """Answer with `error`, and close."""
        self._transport.write(refusal(error, self._books.headers))
        self._hang_up(linger=not self._eof)

    def _hang_up(self, *, linger: bool) -> None:
        """Close; with `linger`, not before the client has, or had time to."""
        self._deaf = True
        self._reader = self._body = None
        self._ahead.clear()
        if linger and self._transport.can_write_eof():
            self._crowd.leaves(self)
            self._transport.write_eof()
            self.resume_reading()
            self._set_timer(self._patience.linger_s, self._close)
        else:
            self._close()

    def _close(self) -> None:
        """Close once everything is sent, and in any case after a while."""
        self._crowd.leaves(self)
        self._set_timer()
        self._transport.close()
        self._stall.start()

    def _expect_head(self) -> None:
        late = RequestTimeout("the headers of the request did not arrive in time")
        self._set_timer(self._patience.headers_s, partial(self._refuse, late))

    def _set_timer(self, delay_s: float = 0.0, callback: Callable[[], None] | None = None) -> None:
        """Replace the timer; without `callback`, by none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if callback is not None:
            self._timer = self._loop.call_later(delay_s, callback)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._books.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler(
                {"message": "the app failed to answer", "exception": error, "task": task}
            )
