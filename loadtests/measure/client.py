"""What a process that sends says of itself, so that nobody takes its limits for the server's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from loadtests.measure.histogram import Histogram, micros

_EVERY_S = 0.02  # between two looks at how late the event loop is
_WINDOW_S = 2.0  # over which CPU is measured


class ClientFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the load generator."""

    name: str
    wall_s: float
    cpu_s: float
    busiest: float = 0.0  # share of a core in its busiest seconds
    late_p50_ms: float = 0.0  # how late its event loop ran what was due
    late_p99_ms: float = 0.0
    late_max_ms: float = 0.0
    # By how much the machine's clock was set while the run went on.
    clock_step_s: float = 0.0
    # After the start that all processes had agreed on.
    started_late_s: float = 0.0
    interrupted: bool = False
    # Requests that became due, by phase. Those that ended are in the aggregate; what is missing
    # there was lost.
    due: dict[str, int] = {}


class Watch:
    """Watches the process and the event loop that it runs in.

    An event that comes while the loop is busy is read, and gets its time, when the loop comes to
    it. A timer has the same fate, so how late timers are says how late events are.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._clock, self._cpu, self._wall = name, clock, cpu, wall
        self._late = Histogram()
        self._began = self._window = (clock(), cpu())
        self._offset = wall() - clock()
        self._busiest = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            due = self._clock() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self.look(due)

    def look(self, due: float) -> None:
        """A timer that was due then has run now."""
        now = self._clock()
        self._late.add(micros(now - due))
        since, cpu = self._window
        if now - since >= _WINDOW_S:
            self._window = now, self._cpu()
            self._busiest = max(self._busiest, (self._window[1] - cpu) / (now - since))

    def figures(
        self, *, due: dict[str, int], interrupted: bool = False, started_late_s: float = 0.0
    ) -> ClientFigures:
        """What it has seen."""
        clock, cpu = self._clock(), self._cpu()
        wall_s, cpu_s = clock - self._began[0], cpu - self._began[1]
        p50, p99 = self._late.percentiles((500, 990)) if len(self._late) else (0, 0)
        return ClientFigures(
            name=self._name,
            wall_s=wall_s,
            cpu_s=cpu_s,
            busiest=max(self._busiest, cpu_s / wall_s if wall_s > 0 else 0.0),
            late_p50_ms=p50 / 1000,
            late_p99_ms=p99 / 1000,
            late_max_ms=self._late.highest / 1000,
            clock_step_s=self._wall() - clock - self._offset,
            started_late_s=started_late_s,
            interrupted=interrupted,
            due=due,
        )
