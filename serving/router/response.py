"""The client's side of one relayed request: what has been sent to the client, whether it is still
there, whether it reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Receive

from serving.api.sse import KEEPALIVE
from serving.errors import ClientLeft
from serving.http.request import Request
from serving.router.record import Record
from serving.wire.messages import SSE_HEAD, Head

# A client that takes nothing for this long is treated as gone.
STALL_S = 60.0


class Departure:
    """Notices that the client has gone."""

    def __init__(self, receive: Receive) -> None:
        self._task = asyncio.create_task(self._wait(receive))
        self._wake: Callable[[], None] | None = None

    @property
    def happened(self) -> bool:
        return self._task.done()

    def notify(self, wake: Callable[[], None]) -> None:
        """Call `wake` when the client leaves; replaces the function given before."""
        self._wake = wake

    def close(self) -> None:
        self._wake = None
        self._task.cancel()

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        asyncio.get_running_loop().call_soon(self._fire)

    def _fire(self) -> None:
        if self._wake is not None:
            self._wake()


class Response:
    """The response of one relayed request.

    Args:
        keepalive_s: the silence after which a stream gets a `keepalive`, in seconds.
        stall_s: how long the client may read nothing of what is sent, in seconds; None is
            `STALL_S`.
    """

    def __init__(
        self,
        request: Request,
        record: Record,
        *,
        keepalive_s: float,
        keepalive: bytes = KEEPALIVE,
        stall_s: float | None = None,
    ) -> None:
        self._request = request
        self._send = request.send
        self._write = request.write
        self._record = record
        self._keepalive_s = keepalive_s
        self._keepalive = keepalive
        self._departure = Departure(request.receive)
        self.stall_s = STALL_S if stall_s is None else stall_s
        self.started = False
        # True once bytes of a stream have been sent: what follows may be forwarded as it comes.
        self.streams = False
        self.last_sent = time.monotonic()
        # Since when a `send` has waited for the client to read; None if none waits.
        self.blocked_since: float | None = None
        # Set by `attended` when it is time to look at the clock.
        self._due = False
        self.whole: list[bytes] = []

    def close(self) -> None:
        """Stop watching whether the client leaves."""
        self._departure.close()

    @property
    def left(self) -> bool:
        """True once the client has gone."""
        return self._departure.happened

    async def start(self, head: Head, length: int | None = None) -> None:
        """Send the response's head. `length` is the body's, where it is known."""
        self.started = True
        self._record.status = head.status
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in head.headers
            if name.lower() != "content-length"
        ]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await self._request.start(head.status, headers)

    async def body(self, data: bytes, *, more: bool) -> None:
        """Send a part of the body; waits while the client does not read."""
        self.last_sent = self.blocked_since = time.monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self.blocked_since = None

    def forward(self, data: bytes, now: float) -> bool:
        """See `Answer.forward`."""
        if self.blocked_since is not None or self._write is None or not self._write(data):
            return False
        self.last_sent = self._record.last_byte = now
        return True

    @contextmanager
    def attended(self, wake: Callable[[], None]) -> Iterator[None]:
        """While the block runs, call `wake` when the client leaves, and every `keepalive_s` so that
        the caller can `beat`. That is one timer per request instead of one per event.

        Raises:
            ClientLeft: from the block, when the client has read nothing for `stall_s`.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        stalled = False
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal stalled, timer
            since = self.blocked_since
            if since is not None and time.monotonic() - since > self.stall_s:
                stalled = True
                if task is not None:
                    task.cancel()
                return
            self._due = True
            wake()
            timer = loop.call_later(self._keepalive_s, look)

        timer = loop.call_later(self._keepalive_s, look)
        self._departure.notify(wake)
        try:
            yield
        except asyncio.CancelledError:
            if not stalled:
                raise
            # The cancellation was our own and has been dealt with.
            if task is not None:
                task.uncancel()
            raise ClientLeft(f"the client read nothing for {self.stall_s:g} s") from None
        finally:
            if timer is not None:
                timer.cancel()

    async def beat(self, comment: bytes = b"") -> None:
        """Send a comment, or a keepalive, to a stream that has long been silent; otherwise do
        nothing."""
        if not self._due:
            return
        self._due = False
        silence_s = time.monotonic() - self.last_sent
        if not self._record.stream or silence_s < self._keepalive_s / 2:
            return
        if not self.started:
            await self.start(SSE_HEAD)
        await self.body(comment or self._keepalive, more=True)
