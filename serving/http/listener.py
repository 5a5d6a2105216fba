"""The HTTP server: it accepts on a port, and leaves it without losing a connection.

`acceptor.py` accepts, `connection.py` reads and answers, `handover.py` passes the socket of a
server that leaves on to one that stays.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp

from serving.errors import ServingError
from serving.http.acceptor import Acceptor
from serving.http.books import Books
from serving.http.connection import Connection
from serving.http.crowd import Crowd
from serving.http.handover import Handover
from serving.http.patience import Patience

# How often a drain looks whether it is done.
LOOK_S = 0.02


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
        leave_s: how long it goes on accepting before that, where no other server takes over.
        patience: how long a client is waited for.
        max_connections: how many may be open; see `crowd.py` for what happens to further ones.
            None: as many as the system allows.
        on_refused: called with each error that answered what never reached the app.
        on_leaving: called when load balancers have `leave_s` to leave.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        drain_s: float = 0.0,
        leave_s: float = 0.0,
        patience: Patience | None = None,
        max_connections: int | None = None,
        on_refused: Callable[[ServingError], None] = lambda _: None,
        on_leaving: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._patience = patience or Patience()
        self._books = books = Books()
        self._crowd = Crowd(books.connections, max_connections)
        self._on_refused = on_refused
        self._on_leaving = on_leaving
        self._listener = listener
        self._drain_s = drain_s
        self._leave_s = leave_s
        self._acceptor: Acceptor | None = None
        self._handover: Handover | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def serving(self) -> bool:
        """True between `start` and `close`."""
        return self._acceptor is not None and not self._books.leaving

    @property
    def connections(self) -> int:
        """How many are open, those included that are being closed."""
        return len(self._books.connections)

    async def start(self) -> None:
        """Listen, on the socket of a server that has left where there is one."""
        self._acceptor = Acceptor(self._connect)
        if self._listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            host, port = self._listener.getsockname()[:2]
            self._handover = Handover(f"{host}:{port}", self._take, self._spare)
            if (spare := await self._handover.ask()) is not None:
                self._listener.close()
                self._listener = spare
            self._handover.start()
        self._acceptor.add(self._listener)

    async def close(self) -> None:
        """Accept nothing more, give running requests `drain_s` to end, then cut them off."""
        if self._acceptor is None or self._books.leaving:
            self._listener.close()
            return
        self._books.leaving = True
        await self._leave(self._acceptor)
        await self._drain(self._acceptor)

    async def _leave(self, acceptor: Acceptor) -> None:
        """Stop accepting, when others do it on the same sockets, or nobody connects any more."""
        taken = False
        if self._handover is not None:
            self._handover.close()
            taken = await self._handover.give(acceptor.sockets)
        alone_s = 0.0 if taken else min(self._leave_s, self._drain_s)
        idle_s = max(alone_s, min(self._patience.leaving_s, self._drain_s))
        for connection in tuple(self._books.connections):
            connection.leave(idle_s)
        if alone_s:
            self._on_leaving()
            await asyncio.sleep(alone_s)
        acceptor.close()

    async def _drain(self, acceptor: Acceptor) -> None:
        """Wait for what is open, then cut it off."""
        books, loop = self._books, asyncio.get_running_loop()
        deadline = loop.time() + self._drain_s
        while (acceptor.connecting or books.connections or books.tasks) and loop.time() < deadline:
            await asyncio.sleep(LOOK_S)
        for task in tuple(books.tasks):
            task.cancel("the server is closed")
        if books.tasks:
            await asyncio.wait(books.tasks, timeout=1.0)

    def _connect(self) -> Connection:
        return Connection(
            self._app,
            books=self._books,
            crowd=self._crowd,
            patience=self._patience,
            on_refused=self._on_refused,
        )

    def _take(self, sockets: Sequence[socket.socket]) -> bool:
        """Accept on the sockets of a server that leaves."""
        if self._acceptor is None or self._books.leaving:
            return False
        for each in sockets:
            self._acceptor.add(each)
        return True

    def _spare(self) -> socket.socket | None:
        """A socket that a new server may have; the first one stays here."""
        if self._acceptor is None or self._books.leaving or len(self._acceptor.sockets) < 2:
            return None
        return self._acceptor.remove(self._acceptor.sockets[-1])
