"""How listening sockets go from a process that leaves to one that stays.

Every process that listens on a shared port has a socket of its own, and the kernel spreads new
connections over them (SO_REUSEPORT). Closing one resets the connections that are queued on it or
are in the middle of their handshake, unless net.ipv4.tcp_migrate_req is 1, which containers may
not set: of 800 connections to two listeners 204 were lost. `shutdown` resets them too, a BPF
program that leaves the socket out needs privileges, and Linux has no other way out of the group.

So the socket stays, and who accepts on it changes: the one that leaves sends it (SCM_RIGHTS,
unix(7)) to another process on that port, which accepts on it as well. A process that starts asks
for such a spare socket before it makes one, so there are never more sockets than there were
processes at once.

They find each other by abstract Unix sockets, which live in the network namespace, as ports do, and
speak only to processes of the same user. One message each way; `TAKE` carries sockets, and so does
`GIVEN`:

    TAKE -> TAKEN | NONE        GIVE -> GIVEN | NONE
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

ANSWER_S = 1.0
# The kernel lists the names of this network namespace here (proc(5)).
NAMES = Path("/proc/net/unix")
TAKE, TAKEN, GIVE, GIVEN, NONE = b"take", b"taken", b"give", b"given", b"none"
# Of a process, at most: its own and those of everybody that has left.
MAX_SOCKETS = 64
_CREDENTIALS = struct.Struct("3i")


class Handover:
    """One process's place among those that listen on a port.

    Args:
        port: the port and the address, as all of them name it.
        take: called with the sockets of a process that leaves; False refuses them.
        spare: called for a socket that a new process may have; it is closed here afterwards.
    """

    def __init__(
        self,
        port: str,
        take: Callable[[Sequence[socket.socket]], bool],
        spare: Callable[[], socket.socket | None],
    ) -> None:
        self._prefix = f"serving-http/{port}/"
        self._name = self._prefix + uuid.uuid4().hex
        self._take = take
        self._spare = spare
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Be there for the others."""
        self._listener = listener = _socket()
        listener.bind("\0" + self._name)
        listener.listen()
        self._loop.add_reader(listener.fileno(), self._accept, listener)

    def close(self) -> None:
        """Be there no more."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    async def give(self, sockets: Sequence[socket.socket]) -> bool:
        """Give the sockets to another process; True if one has taken them. They stay open here."""
        for name in self._others():
            answer, _ = await self._ask(name, TAKE, sockets)
            if answer == TAKEN:
                return True
        return False

    async def ask(self) -> socket.socket | None:
        """A listening socket that another process has to spare."""
        for name in self._others():
            answer, sockets = await self._ask(name, GIVE)
            if answer == GIVEN and sockets:
                return sockets[0]
        return None

    def _others(self) -> list[str]:
        """The names of the other processes on this port, in random order."""
        try:
            lines = NAMES.read_text(errors="replace").splitlines()
        except OSError:
            return []
        words = {line.rpartition(" ")[2].removeprefix("@") for line in lines}
        names = [word for word in words if word.startswith(self._prefix) and word != self._name]
        random.shuffle(names)
        return names

    async def _ask(
        self, name: str, question: bytes, sockets: Sequence[socket.socket] = ()
    ) -> tuple[bytes, list[socket.socket]]:
        with _socket() as connection, contextlib.suppress(OSError, TimeoutError):
            connection.connect("\0" + name)
            if _is_ours(connection):
                socket.send_fds(connection, [question], [each.fileno() for each in sockets])
                async with asyncio.timeout(ANSWER_S):
                    return await _receive(connection)
        return NONE, []

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            task = self._loop.create_task(self._answer(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, TimeoutError):
            if not _is_ours(connection):
                return
            async with asyncio.timeout(ANSWER_S):
                question, sockets = await _receive(connection)
            if question == TAKE and sockets:
                connection.send(TAKEN if self._take(sockets) else NONE)
            elif question == GIVE and (spare := self._spare()) is not None:
                with spare:
                    socket.send_fds(connection, [GIVEN], [spare.fileno()])
            else:
                connection.send(NONE)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setblocking(False)
    return made


def _is_ours(connection: socket.socket) -> bool:
    """True if the process at the other end runs as this user."""
    size = _CREDENTIALS.size
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, user, _ = _CREDENTIALS.unpack(found)
    return bool(user == os.geteuid())


async def _receive(connection: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """The next message and the sockets that come with it."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection.fileno())
    message, numbers, _, _ = socket.recv_fds(connection, 64, MAX_SOCKETS)
    return message, [socket.socket(fileno=number) for number in numbers]
