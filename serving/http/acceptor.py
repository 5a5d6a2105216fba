"""Accepts connections on listening sockets until they are closed, and loses none as they are.

uvloop's own servers accept one connection per turn of the event loop: 100 connections that were
queued together waited 102 turns, and what is still queued when such a server closes is reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence

# Connections the kernel holds while the event loop is busy.
BACKLOG = 2048
# Accepted in one turn of the loop, so that running requests get their turn in a storm.
ACCEPTS_PER_TURN = 64
# Without descriptors or memory for one more, accepting pauses for so long, in seconds.
PAUSE_S = 0.2
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Acceptor:
    """Makes a protocol for every connection on its sockets.

    Args:
        protocol: makes the protocol of a new connection.
    """

    def __init__(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._resuming: dict[socket.socket, asyncio.TimerHandle] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return self._sockets

    @property
    def connecting(self) -> int:
        """Connections that are accepted and do not have their protocol yet."""
        return len(self._connecting)

    def add(self, listener: socket.socket) -> None:
        """Accept on one more socket, which belongs to this object from now on."""
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._sockets.append(listener)
        self._loop.add_reader(listener.fileno(), self._accept_some, listener)

    def remove(self, listener: socket.socket) -> socket.socket:
        """Accept no more on it, leave what is queued, and give it back open."""
        self._sockets.remove(listener)
        if (resuming := self._resuming.pop(listener, None)) is not None:
            resuming.cancel()
        else:
            self._loop.remove_reader(listener.fileno())
        return listener

    def close(self) -> None:
        """Accept what is queued, then close every socket.

        A connection whose handshake has not ended by then is reset by the kernel (unless
        net.ipv4.tcp_migrate_req is 1 and the port has other listeners), so callers see to it that
        none comes: others hold the socket too, or load balancers have left.
        """
        for listener in list(self._sockets):
            self.remove(listener)
            with contextlib.suppress(OSError):
                while self._accept(listener):
                    pass
            listener.close()

    def _accept_some(self, listener: socket.socket) -> None:
        try:
            for _ in range(ACCEPTS_PER_TURN):
                if not self._accept(listener):
                    return
        except OSError:
            self._loop.remove_reader(listener.fileno())
            self._resuming[listener] = self._loop.call_later(PAUSE_S, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        del self._resuming[listener]
        self._loop.add_reader(listener.fileno(), self._accept_some, listener)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one connection; False if none is queued.

        Raises:
            OSError: the process or the system has no room for another.
        """
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                raise
            # An error of that connection (accept(2)); the next one may be good.
            return True
        connection.setblocking(False)
        task = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it is gone already
            connection.close()
