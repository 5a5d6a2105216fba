"""How busy a sending process was: a run in which the client came too late measured the client."""

from __future__ import annotations

import gc
import time
from array import array
from dataclasses import dataclass

from loadtests.clock import Clock
from loadtests.run.agenda import Agenda

BEAT_S = 0.02


@dataclass(frozen=True, slots=True)
class Health:
    """The client itself during its run."""

    seconds: float
    cpu_s: float  # of this process; near `seconds` it can do no more
    late_p99_ms: float  # how late what it had to do was done
    late_max_ms: float
    collections_max_ms: float  # the longest halt for the garbage collector


class Pulse:
    """Looks every 20 ms how late it is called.

    The answers that arrived meanwhile were read as late. In a closed loop nothing else shows it,
    since there a request is due when the one before it has been read.
    """

    def __init__(self, agenda: Agenda, clock: Clock) -> None:
        self._agenda = agenda
        self._clock = clock
        self._late = array("d")
        self._began = self._next = clock.now()
        self._cpu = time.process_time()
        self._collection = 0.0
        self._collections_max = 0.0
        self._stopped = False
        gc.callbacks.append(self._collected)
        self._arm()

    def _arm(self) -> None:
        self._next = max(self._next + BEAT_S, self._clock.now())
        self._agenda.at(self._next, self._beat)

    def _beat(self) -> None:
        if not self._stopped:
            self._late.append(self._clock.now() - self._next)
            self._arm()

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        now = time.monotonic()
        if phase == "start":
            self._collection = now
        else:
            self._collections_max = max(self._collections_max, now - self._collection)

    def stop(self) -> Health:
        """Stop looking; return what was seen."""
        self._stopped = True
        gc.callbacks.remove(self._collected)
        late = sorted(self._late) or [0.0]
        return Health(
            seconds=self._clock.now() - self._began,
            cpu_s=time.process_time() - self._cpu,
            late_p99_ms=late[min(len(late) - 1, int(len(late) * 0.99))] * 1000,
            late_max_ms=late[-1] * 1000,
            collections_max_ms=self._collections_max * 1000,
        )
