"""What is to be done when, in the seconds of a run."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from loadtests.clock import Clock
from loadtests.run.alarm import make_alarm

# So much is done before the sockets are looked at again, however late it is.
AT_ONCE = 32


class Agenda:
    """A heap of calls, and an alarm for the first of them. Calls may come late, never early."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._alarm = make_alarm(asyncio.get_running_loop(), self._ring)
        self._ringing = False
        self._closed = False

    def at(self, when_s: float, call: Callable[[], None]) -> None:
        """Call at this time; calls for one time are made in the order in which they came.

        After `close` nothing is called.
        """
        if self._closed:
            return
        self._count += 1
        entry = (when_s, self._count, call)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry and not self._ringing:
            self._set()

    def _ring(self) -> None:
        self._ringing = True
        try:
            for _ in range(AT_ONCE):
                if not self._heap or self._heap[0][0] > self._clock.now():
                    break
                heapq.heappop(self._heap)[2]()
        finally:
            self._ringing = False
            if self._heap:
                self._set()

    def _set(self) -> None:
        self._alarm.set(self._clock.start + self._heap[0][0])

    def close(self) -> None:
        """Call nothing more."""
        self._closed = True
        self._heap.clear()
        self._alarm.close()
