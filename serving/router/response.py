"""The client's side of one request: what has been sent to it, whether it is still there, whether
it reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.types import Receive, Send

from serving.api.sse import CONTENT_TYPE
from serving.errors import ClientLeft
from serving.http.request import Headers
from serving.router.record import Record


class Departure:
    """Notices that the client has gone, whoever runs the app: Ray Serve cancels the request's
    task, plain uvicorn only says so when asked."""

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
    """The client's side of one relay: what has been sent so far.

    `write`, where the server has it (`http_server.WRITE`), sends without waiting or refuses to.
    """

    def __init__(
        self, send: Send, write: Callable[[bytes], bool] | None, headers: Headers, record: Record
    ) -> None:
        self._send = send
        self._write = write
        self._headers = headers
        self._record = record
        self.started = False
        # Bytes of a stream have been sent: what follows may be forwarded as it comes.
        self.streams = False
        self.last_sent = time.monotonic()
        # Since when a `send` waits for the client to read; None while none does.
        self.blocked_since: float | None = None
        self.whole: list[bytes] = []

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self._record.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": headers + self._headers,
            }
        )

    async def body(self, data: bytes, *, more: bool) -> None:
        self.last_sent = self.blocked_since = time.monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self.blocked_since = None

    async def keep_alive(self, silence_s: float, comment: bytes) -> None:
        """Send a comment if nothing has been sent for `silence_s`."""
        if time.monotonic() - self.last_sent < silence_s:
            return
        if not self.started:
            await self.start(200, [(b"content-type", CONTENT_TYPE)])
        await self.body(comment, more=True)

    def forward(self, data: bytes, now: float) -> bool:
        """See `Answer.forward`."""
        if self.blocked_since is not None or self._write is None or not self._write(data):
            return False
        self.last_sent = self._record.last_byte = now
        return True


class Pulse:
    """While its block runs: wakes a relay every `interval_s` to look at the clock, and ends one
    whose client reads nothing for `stall_s`; one timer per request instead of one per event.

    Raises:
        ClientLeft: from the block, when the client reads nothing.
    """

    def __init__(
        self, response: Response, wake: Callable[[], None], interval_s: float, stall_s: float
    ) -> None:
        self._response = response
        self._wake = wake
        self._interval_s = interval_s
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(interval_s, self._beat)
        self._stalled = False
        self.due = False

    def __enter__(self) -> Pulse:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._stalled and kind is asyncio.CancelledError:
            # The cancellation was our own and has been dealt with.
            if self._task is not None:
                self._task.uncancel()
            raise ClientLeft(f"the client read nothing for {self._stall_s:g} s") from None

    def _beat(self) -> None:
        since = self._response.blocked_since
        if since is not None and time.monotonic() - since > self._stall_s:
            self._stalled = True
            if self._task is not None:
                self._task.cancel()
            return
        self.due = True
        self._wake()
        self._timer = self._loop.call_later(self._interval_s, self._beat)
