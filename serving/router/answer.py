"""The answer to one call, between whoever runs the call and the relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from serving.errors import EngineFailed, ServingError
from serving.wire.messages import Allowance, End, Head, Spent

# The most of a stream that a slow client may leave unread before its request is given up, in bytes.
MAX_UNREAD = 4 * 1024 * 1024
_SSE = "text/event-stream"


class AttemptFailed(Exception):
    """A call failed on its replica.

    `retryable`: another replica may run it, if its caller has seen nothing of the answer. `used`:
    what the call had used by then, None if the replica cannot say.
    """

    def __init__(self, error: ServingError, *, retryable: bool, used: End | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retryable = retryable
        self.used = used


def is_stream(head: Head) -> bool:
    """True for an answer that is to be passed on as it comes."""
    return any(
        name.lower() == "content-type" and value.startswith(_SSE) for name, value in head.headers
    )


class Sender(Protocol):
    """Whoever runs a call, and can be told to stop it."""

    def cancel(self, stream: int) -> None: ...


class Answer:
    """What comes back for one call: `wait`, then look at `head`, `take`, `end` and `failed`.

    Once its stream is under way, the reader may set `forward`. It is called with the bytes of each
    read from the link, in the callback that read them, and returns True if it took them. Bytes that
    it did not take are kept for `take` and joined, so a slow client costs fewer events, not more.

    An abandoned answer gets no more bytes, only the replica's last word: what was used.
    """

    __slots__ = (
        "_closed",
        "_due",
        "_parts",
        "_sender",
        "_size",
        "_stream",
        "_streams",
        "_used",
        "_waiter",
        "end",
        "failed",
        "forward",
        "head",
        "on_spent",
        "on_taken",
    )

    def __init__(self, sender: Sender, stream: int) -> None:
        self._sender = sender
        self._stream = stream
        self._parts: list[bytes] = []
        self._size = 0
        self._due = False
        self._streams = False
        self._waiter: asyncio.Future[None] | None = None
        # True once the replica has said its last word; `_used` is what it said was used.
        self._closed = False
        self._used: End | None = None
        self.head: Head | None = None
        self.end: End | None = None
        self.failed: AttemptFailed | None = None
        self.forward: Callable[[bytes, float], bool] | None = None
        # Called when `take` has taken bytes.
        self.on_taken: Callable[[], None] | None = None
        # Called with what the replica says that the call has used on its way; returns how far it
        # may go.
        self.on_spent: Callable[[Spent], Allowance] | None = None

    @property
    def unread(self) -> int:
        """How many bytes have arrived and were not taken yet."""
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
        """True if there are bytes, an end or a failure to act on."""
        return bool(self._parts) or self.end is not None or self.failed is not None

    @property
    def closed(self) -> bool:
        """True once the replica has said its last word, or is known to say none."""
        return self._closed

    @property
    def last_word(self) -> End | None:
        """What the replica has said the call used; None if it has not said so, or died."""
        return self._used

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

    async def used(self, within_s: float) -> End | None:
        """What the replica says the call used; it says so even of a call that it was told to stop.
        None if it has not said so within `within_s` seconds, or died."""
        if not self._closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    while not self._closed:
                        await self.wait()
        return self._used

    # called by whoever runs the call

    def on_head(self, head: Head) -> None:
        self.head = head
        self._streams = is_stream(head)
        self.wake()

    def on_data(self, data: bytes, due: list[Answer]) -> None:
        """Keep `data`, and join `due`: `deliver` is called once the whole read has been parsed."""
        self._parts.append(data)
        self._size += len(data)
        if not self._due:
            self._due = True
            due.append(self)

    def deliver(self, now: float) -> None:
        """Pass on the bytes of one read, which came at `now` in `time.monotonic` seconds."""
        self._due = False
        if self.end is not None or self.failed is not None:
            return  # the reader has been woken and takes the bytes together with the end
        parts = self._parts
        if self.forward is not None and self.forward(
            parts[0] if len(parts) == 1 else b"".join(parts), now
        ):
            parts.clear()
            self._size = 0
            return
        # A whole answer is kept until its end, however its client reads, and may come in many parts
        # at once.
        if self._size > MAX_UNREAD and len(parts) > 1 and (self.head is None or self._streams):
            self._sender.cancel(self._stream)
            self.failed = AttemptFailed(
                EngineFailed("the client reads too slowly"), retryable=False
            )
        self.wake()

    def on_end(self, end: End) -> None:
        """The call ended, well or because it was told to stop."""
        self._closed = True
        self._used = self.end = end
        self.wake()

    def on_fail(self, failed: AttemptFailed) -> None:
        """The call failed, or nothing more will be heard of it."""
        self._closed = True
        self._used = failed.used
        self.failed = failed
        self.wake()

    def wake(self) -> None:
        """Make `wait` return although nothing has come, so that the reader looks at the clock."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
