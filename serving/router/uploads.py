"""Bodies from disk on their way to a replica: a piece at a time, as fast as the link takes them.

A body goes in PARTs before its OPEN. Between two parts there is room for whatever else the link has
to carry, and bodies that are sent at the same time take turns. So a router has a few pieces in
memory for each link, however large the bodies are and however slow the replica reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serving.observability.logs import Log
from serving.wire.body import PIECE_BYTES, OnDisk
from serving.wire.frames import Kind
from serving.wire.outbox import Outbox


class Uploads:
    """The bodies that are being sent on one link.

    Args:
        on_fail: called with the number of a call whose body cannot be read any more.
    """

    def __init__(self, outbox: Outbox, log: Log, on_fail: Callable[[int], None]) -> None:
        self._outbox = outbox
        self._log = log
        self._on_fail = on_fail
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._writable = asyncio.Event()
        self._writable.set()

    def send(self, stream: int, opening: bytes, body: OnDisk) -> None:
        """Send `body`, and then an OPEN frame with `opening`."""
        # From now on the replica knows of it, and has a last word if it is cancelled.
        self._outbox.send(Kind.PART, stream)
        task = asyncio.get_running_loop().create_task(self._send(stream, opening, body))
        self._tasks[stream] = task
        task.add_done_callback(lambda _: self._tasks.pop(stream, None))

    def cancel(self, stream: int) -> None:
        """Send no more of a body; a no-op after its end."""
        if (task := self._tasks.get(stream)) is not None:
            task.cancel()

    def pause(self) -> None:
        """The link takes no more for now."""
        self._writable.clear()

    def resume(self) -> None:
        """The link takes more."""
        self._writable.set()

    def close(self) -> None:
        """The connection is gone."""
        for task in list(self._tasks.values()):
            task.cancel()
        self._writable.set()

    async def _send(self, stream: int, opening: bytes, body: OnDisk) -> None:
        try:
            for at in range(0, len(body), PIECE_BYTES):
                async with self._turn:
                    await self._writable.wait()
                    piece = await asyncio.to_thread(body.read, at, PIECE_BYTES)
                    if len(piece) != min(PIECE_BYTES, len(body) - at):
                        raise OSError("the body is shorter than it was")
                    self._outbox.send(Kind.PART, stream, piece)
        except (OSError, ValueError) as error:
            self._log.exception("body_lost", error)
            self._on_fail(stream)
        else:
            self._outbox.send(Kind.OPEN, stream, opening)
