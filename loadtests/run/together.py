"""The shards of a run, which begin at one time: how one of them sees the others."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

LEAD_S = 1.0  # from the last word to the start


class NoMeeting(Exception):
    """The shards did not come together, or did not stay until the end."""


@dataclass(frozen=True, slots=True)
class ClockDifference:
    """By how much a shard's Unix time is ahead of the leader's, in seconds, give or take."""

    shard: int
    ahead_s: float
    within_s: float

    def __str__(self) -> str:
        way = "ahead of" if self.ahead_s >= 0 else "behind"
        return (
            f"the clock of shard {self.shard} is {abs(self.ahead_s) * 1000:.1f} ms {way} "
            f"the leader's (within {self.within_s * 1000:.1f} ms)"
        )


@dataclass(frozen=True, slots=True)
class Meeting:
    """What was agreed: the start, in this machine's CLOCK_MONOTONIC."""

    start: float
    clocks: tuple[ClockDifference, ...] = ()  # the leader knows them all, a shard its own


class Together(Protocol):
    """What a shard does with the others."""

    async def meet(self) -> Meeting:
        """Agree on the start, when this shard is ready. Raises NoMeeting."""

    async def parts(self, wait_s: float) -> list[bytes] | None:
        """When this shard's requests have ended: what the others have measured, when theirs
        have. None where nobody hands anything over to this one."""

    async def hand_over(self, part: bytes) -> None:
        """Give the leader what this shard has measured. Raises NoMeeting."""


class Alone:
    """No other shards: the start is as soon as all processes have heard of it."""

    async def meet(self) -> Meeting:
        """Start in a moment."""
        return Meeting(time.monotonic() + LEAD_S / 4)

    async def parts(self, wait_s: float) -> list[bytes] | None:
        """Nobody has any."""
        return None

    async def hand_over(self, part: bytes) -> None:
        """To nobody."""


class AtTime(Alone):
    """Shards that do not know each other and start at a Unix time, which all are given."""

    def __init__(self, wall: float) -> None:
        self._wall = wall

    async def meet(self) -> Meeting:
        """Start then. Raises NoMeeting if it has passed."""
        return Meeting(until(self._wall))


def until(wall: float) -> float:
    """Return a Unix time in CLOCK_MONOTONIC. Raises NoMeeting if it has passed."""
    wait = wall - time.time()
    if wait <= 0:
        raise NoMeeting(f"the start was {-wait:.1f} s ago, when this shard was ready")
    return time.monotonic() + wait
