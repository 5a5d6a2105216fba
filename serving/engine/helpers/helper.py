"""One helper: its life in its process, and the engine server's end of it.

A job and its answer are bytes behind their length, on a socket that only these two hold. One that
is closed ends the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

_LENGTH = struct.Struct("!Q")
_PAGE = os.sysconf("SC_PAGE_SIZE")

Work = Callable[[bytes], bytes]


class HelperEnded(Exception):
    """The helper ended before it had answered."""


def help_until_closed(connection: socket.socket, work: Work) -> None:
    """A helper's life: one job after the other."""
    _send(connection, b"")
    while (job := _receive(connection)) is not None:
        _send(connection, work(job))


def _send(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(payload)))
    connection.sendall(payload)


def _receive(connection: socket.socket) -> bytes | None:
    """The next job; None when the engine server has closed."""
    head = _exactly(connection, _LENGTH.size)
    return None if head is None else _exactly(connection, _LENGTH.unpack(head)[0])


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    found = bytearray(size)
    view, got = memoryview(found), 0
    while got < size:
        count = connection.recv_into(view[got:])
        if count == 0:
            return None
        got += count
    return bytes(found)


class Helper:
    """One helper, as the engine server sees it."""

    def __init__(
        self,
        pid: int,
        handle: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._pid = pid
        self._handle = handle
        self._reader = reader
        self._writer = writer
        self._resident_at_start = 0
        self.killed = False

    @classmethod
    async def open(cls, pid: int, connection: socket.socket) -> Helper:
        # A handle and not the number: the number may be another process's when it is killed.
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            connection.close()
            raise HelperEnded("it ended at once") from None
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        return cls(pid, handle, reader, writer)

    async def ready(self) -> None:
        """Wait until it takes jobs."""
        await self._answer()
        self._resident_at_start = self._resident()

    async def ask(self, job: bytes) -> bytes:
        """Run one job.

        Raises:
            HelperEnded: it ended instead of answering.
        """
        self._writer.write(_LENGTH.pack(len(job)))
        self._writer.write(job)
        return await self._answer()

    async def _answer(self) -> bytes:
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            raise HelperEnded("it ended before it had answered") from None

    @property
    def grown(self) -> int:
        """Bytes of memory that it has taken since it was ready."""
        return self._resident() - self._resident_at_start

    def _resident(self) -> int:
        try:
            return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0  # it has ended, which its connection tells

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.killed:
            return
        self.killed = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        self._writer.close()
