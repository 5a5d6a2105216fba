"""How long a client is waited for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for, in seconds: until a request's headers are complete, between
    two requests, while it reads nothing of what is sent, to close after an error, and between two
    requests once the server is being closed."""

    headers_s: float = 20.0
    keep_alive_s: float = 75.0
    stall_s: float = 75.0
    linger_s: float = 2.0
    leaving_s: float = 2.0


class StallWatch:
    """Cuts a client off that takes nothing of what is to be sent for `stall_s` seconds. While it
    watches, nothing may be added to that."""

    def __init__(self, transport: asyncio.Transport, stall_s: float) -> None:
        self._transport = transport
        self._stall_s = stall_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch until `stop`; a no-op while it does."""
        if self._timer is None:
            unsent = self._transport.get_write_buffer_size()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._stall_s, self._look, unsent)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, unsent_before: int) -> None:
        self._timer = None
        if self._transport.get_write_buffer_size() < unsent_before:
            self.start()
        else:
            self._transport.abort()
