"""Connections to an engine server that have not yet shown the cluster's token.

A router's HELLO comes right after its connection. A connection that stays silent is closed after a
second. Of too many silent ones the oldest is closed, so that strangers cannot keep a router out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

HELLO_S = 1.0
MAX_STRANGERS = 64


class Stranger(Protocol):
    """A connection that may be refused."""

    def refuse(self, reason: str) -> None:
        """Close it, which takes it off the books (`Strangers.discard`) soon."""


class Strangers:
    """The strangers of one engine server, in the order in which they came."""

    def __init__(self) -> None:
        self._timers: dict[Stranger, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def __iter__(self) -> Iterator[Stranger]:
        return iter(list(self._timers))

    def add(self, stranger: Stranger) -> None:
        """Called for each new connection."""
        self._wait(stranger, HELLO_S, self._late)
        if len(self._timers) > MAX_STRANGERS:
            oldest = next(iter(self._timers))
            self.discard(oldest)
            oldest.refuse("too many connections without a HELLO")

    def discard(self, stranger: Stranger) -> None:
        """It is none any more, or it is gone."""
        if (timer := self._timers.pop(stranger, None)) is not None:
            timer.cancel()

    def _late(self, stranger: Stranger) -> None:
        # A moment more: where the event loop stood still, the HELLO may be waiting to be read.
        self._wait(stranger, HELLO_S / 20, self._too_late)

    def _too_late(self, stranger: Stranger) -> None:
        self.discard(stranger)
        stranger.refuse(f"no HELLO in {HELLO_S:g} s")

    def _wait(self, stranger: Stranger, seconds: float, then: Callable[[Stranger], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers[stranger] = loop.call_later(seconds, then, stranger)
