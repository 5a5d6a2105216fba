"""uvicorn inside a process that has an event loop and signal handlers of its own.

This module adds what uvicorn lacks: limits on the time and size of a request's headers, and
answers in the API's error format to bytes that are not HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving.api.envelope import error_body
from serving.errors import HeadersTooLarge, InvalidRequest, RequestTimeout, ServingError
from serving.http.request import WRITE

HEADER_TIMEOUT_S = 20.0
# Far above the app's own limit, whose error has the caller's request ID. This one only keeps
# endless headers out of memory.
MAX_HEADER_BYTES = 64 * 1024
KEEP_ALIVE_S = 75
# Connections the kernel holds while the event loop is busy.
BACKLOG = 2048


def listen(host: str, port: int = 0, *, shared: bool = False) -> socket.socket:
    """A socket for `HttpServer`. With `shared`, other processes of this user may listen on the
    same port, and the kernel spreads new connections over all of them (SO_REUSEPORT, socket(7)).

    Raises:
        OSError: the address is taken, or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then (uvloop always does).
    # Without TCP_NODELAY a response in two writes takes 40 ms: the second write waits for the
    # client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class HttpServer:
    """Serves an ASGI app on `sockets` until `close`.

    Args:
        drain_s: how long `close` waits for requests that are being answered, in seconds.
        header_timeout_s: how long a client may take to send a request's headers, in seconds.
        max_connections: further ones are closed at once; None: as many as the system allows.
    """

    def __init__(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        *,
        drain_s: float = 0.0,
        header_timeout_s: float = HEADER_TIMEOUT_S,
        max_connections: int | None = None,
    ) -> None:
        protocol = partial(
            _Protocol, header_timeout_s=header_timeout_s, max_connections=max_connections
        )
        self._sockets = list(sockets)
        self._drain_s = drain_s
        self._server = _Server(
            uvicorn.Config(
                cast(Any, app),  # uvicorn and starlette spell the same protocol in other types
                http=cast(Any, protocol),
                ws="none",
                lifespan="off",
                access_log=False,
                proxy_headers=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=cast(Any, drain_s),  # a float does as well as an int
                backlog=BACKLOG,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Port of the first socket."""
        return int(self._sockets[0].getsockname()[1])

    @property
    def serving(self) -> bool:
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=self._sockets))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Accept nothing more, give running requests `drain_s` to end, then cut them off."""
        self._server.should_exit = True
        self._server.force_exit = self._drain_s == 0
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._drain_s + 2)
        for listener in self._sockets:
            listener.close()


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self, *args: Any, header_timeout_s: float, max_connections: int | None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        self._header_timeout_s = header_timeout_s
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_are_in()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._header_timer is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        # Only while the headers have not ended: a body may be larger than this.
        if self._header_timer is not None and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(HeadersTooLarge(f"the headers have more than {MAX_HEADER_BYTES} bytes"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timer is None:  # a later request on this connection
            self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_are_in()
        super().on_headers_complete()
        # Not too late: the request's task exists, but it has not begun.
        cast(dict[str, Any], self.scope)["extensions"] = {WRITE: partial(_write, self.cycle)}

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for bytes that are not HTTP."""
        self._refuse(InvalidRequest("not a valid HTTP request"))

    def _expect_headers(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self._header_timeout_s, self._late)

    def _headers_are_in(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _late(self) -> None:
        self._refuse(RequestTimeout("the headers of the request did not arrive in time"))

    def _refuse(self, error: ServingError) -> None:
        """Send the error and close the connection; in the middle of a response, only close it."""
        self._headers_are_in()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            identity = uuid.uuid4().hex
            body = error_body(error, identity)
            head = (
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                f"x-request-id: {identity}\r\nx-should-retry: false\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[error.status] + head.encode() + body)
        self.transport.close()


def _write(cycle: RequestResponseCycle, data: bytes) -> bool:
    """Write a part of a body as `cycle.send` would; return False where only `send` can do it."""
    if cycle.flow.write_paused or not cycle.chunked_encoding or cycle.response_complete:
        return False
    if not cycle.disconnected:
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
    return True
