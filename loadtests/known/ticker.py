"""Calls at given times, cheaply for very many of them."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable

TICK_S = 0.001


class Ticker:
    """Calls back at given times: one heap, looked at every millisecond while there is work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._armed = False

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at a time of CLOCK_MONOTONIC, or soon after."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, call))
        if not self._armed:
            self._armed = True
            self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._armed = False
        now = time.monotonic()
        heap = self._heap
        while heap and heap[0][0] <= now:
            heapq.heappop(heap)[2]()
        if heap and not self._armed:
            self._armed = True
            self._loop.call_later(TICK_S, self._tick)
