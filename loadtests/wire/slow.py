"""Reading slowly: the kernel's buffers fill, and then the sender must wait."""

from __future__ import annotations

import asyncio

from loadtests.clock import Clock


class Throttle:
    """Pauses the reading of a transport for as long as what was read would have taken."""

    __slots__ = ("_bytes_per_s", "_now", "_paused_until", "_resume")

    def __init__(self, clock: Clock, bytes_per_s: float) -> None:
        self._now = clock.now
        self._bytes_per_s = bytes_per_s
        self._paused_until = 0.0
        self._resume: asyncio.TimerHandle | None = None

    def took(self, size: int, transport: asyncio.Transport) -> None:
        """So many bytes were read: read no more for as long as they take at this pace."""
        now = self._now()
        # TLS has more to hand out after a pause sometimes.
        self._paused_until = max(self._paused_until, now) + size / self._bytes_per_s
        if self._resume is None:
            transport.pause_reading()
        else:
            self._resume.cancel()
        loop = asyncio.get_running_loop()
        self._resume = loop.call_later(self._paused_until - now, self._go_on, transport)

    def end(self) -> None:
        """The connection has ended: nothing goes on."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def _go_on(self, transport: asyncio.Transport) -> None:
        self._resume = None
        transport.resume_reading()
