"""uvicorn's server around our own connections, in a process that has an event loop and signal
handlers of its own.

uvicorn accepts, and drains when it is told to stop; `connection.py` reads and answers. uvicorn's
own protocol classes take a request that says `Upgrade` for two, stop reading a socket that has a
second request waiting, and cannot say why they refuse one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from serving.errors import ServingError
from serving.http.connection import Connection
from serving.http.crowd import Crowd
from serving.http.patience import Patience
from serving.http.request import Headers

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
    """Serves an ASGI app on `listener` until `close`.

    Args:
        drain_s: how long `close` waits for requests that are being answered, in seconds.
        patience: how long a client is waited for.
        max_connections: how many may be open; see `crowd.py` for what happens to further ones.
            None: as many as the system allows.
        on_refused: called with each error that answered what never reached the app.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        drain_s: float = 0.0,
        patience: Patience | None = None,
        max_connections: int | None = None,
        on_refused: Callable[[ServingError], None] = lambda _: None,
    ) -> None:
        patience = patience or Patience()
        connections: set[Any] = set()
        crowd = Crowd(connections, max_connections)

        def connect(*, server_state: Any, **_: Any) -> Connection:
            return Connection(
                app,
                connections=connections,
                crowd=crowd,
                tasks=server_state.tasks,
                headers=lambda: cast(Headers, server_state.default_headers),
                patience=patience,
                on_refused=on_refused,
            )

        self._listener = listener
        self._drain_s = drain_s
        self._server = _Server(
            uvicorn.Config(
                cast(Any, app),  # uvicorn and starlette spell the same protocol in other types
                http=cast(Any, connect),
                ws="none",
                lifespan="off",
                access_log=False,
                proxy_headers=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=cast(Any, drain_s),  # a float does as well as an int
                backlog=BACKLOG,
            )
        )
        # uvicorn drains what is in its set.
        self._server.server_state.connections = connections
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def serving(self) -> bool:
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
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
        self._listener.close()


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
