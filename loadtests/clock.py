"""The clock of a run: seconds since its start, the same in all processes of a machine."""

from __future__ import annotations

import time


class Clock:
    """Counts from `start`, a time of CLOCK_MONOTONIC, which all processes of a machine share."""

    __slots__ = ("start",)

    def __init__(self, start: float) -> None:
        self.start = start

    def now(self) -> float:
        """Return the seconds since the run's start; negative before it."""
        return time.monotonic() - self.start
