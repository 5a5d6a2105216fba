"""What comes back for one request, between whoever runs it and the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from serving.errors import EngineFailed, ServingError
from serving.wire.messages import End, Head

# What a slow client may leave unread before its request is given up, in bytes.
MAX_UNREAD = 4 * 1024 * 1024


NOTHING_USED = End()


class AttemptFailed(Exception):
    """A request ended badly on its replica. `retryable`: nothing was produced yet. `usage`: what
    the replica had used by then."""

    def __init__(self, error: ServingError, *, retryable: bool, usage: End = NOTHING_USED) -> None:
        super().__init__(error.message)
        self.error = error
        self.retryable = retryable
        self.usage = usage


class Sender(Protocol):
    """Where the request of an answer was sent: it can be told to stop."""

    def cancel(self, stream: int) -> None: ...


class Answer:
    """What comes back for one request: `wait`, then look at `head`, `take`, `end` and `failed`.

    Once its stream is under way, the reader may set `forward`, which then gets the bytes of each
    read from the link where they arrive, and says whether it took them. What nobody takes is kept
    for `take`, joined, so a slow client costs fewer events, not more.
    """

    __slots__ = (
        "_due",
        "_parts",
        "_sender",
        "_size",
        "_stream",
        "_waiter",
        "end",
        "failed",
        "forward",
        "head",
        "on_taken",
    )

    def __init__(self, sender: Sender, stream: int) -> None:
        self._sender = sender
        self._stream = stream
        self._parts: list[bytes] = []
        self._size = 0
        self._due = False
        self._waiter: asyncio.Future[None] | None = None
        self.head: Head | None = None
        self.end: End | None = None
        self.failed: AttemptFailed | None = None
        self.forward: Callable[[bytes, float], bool] | None = None
        # Called when what was kept has been taken.
        self.on_taken: Callable[[], None] | None = None

    @property
    def unread(self) -> int:
        """Bytes that nobody has taken yet."""
        return self._size

    async def wait(self) -> None:
        """Wait until there is something to read: a head, bytes, an end or a failure."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    @property
    def ready(self) -> bool:
        """Whether there are bytes, an end or a failure to act on."""
        return bool(self._parts) or self.end is not None or self.failed is not None

    def take(self) -> bytes:
        """All bytes that have arrived and were not taken yet."""
        parts = self._parts
        if not parts:
            return b""
        self._parts = []
        self._size = 0
        if self.on_taken is not None:
            self.on_taken()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abandon(self) -> None:
        """Tell the replica to stop; a no-op after the end."""
        self._sender.cancel(self._stream)

    # called by the link

    def on_head(self, head: Head) -> None:
        self.head = head
        self.wake()

    def on_data(self, data: bytes, due: list[Answer]) -> None:
        """Keep `data`; `deliver` is due when everything of this read has come."""
        self._parts.append(data)
        self._size += len(data)
        if not self._due:
            self._due = True
            due.append(self)

    def deliver(self, now: float) -> None:
        """Pass on what has come; `now` is when, in `time.monotonic` seconds."""
        self._due = False
        if self.end is not None or self.failed is not None:
            return  # the reader has been woken and takes it together with the end
        parts = self._parts
        if self.forward is not None and self.forward(
            parts[0] if len(parts) == 1 else b"".join(parts), now
        ):
            parts.clear()
            self._size = 0
            return
        # One part may be larger: a whole answer comes in one.
        if self._size > MAX_UNREAD and len(parts) > 1:
            self._sender.cancel(self._stream)
            self.on_fail(
                AttemptFailed(EngineFailed("the client reads too slowly"), retryable=False)
            )
        self.wake()

    def on_end(self, end: End) -> None:
        self.end = end
        self.wake()

    def on_fail(self, failed: AttemptFailed) -> None:
        self.failed = failed
        self.wake()

    def wake(self) -> None:
        """Let `wait` return although nothing has come: time to look at the clock."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
