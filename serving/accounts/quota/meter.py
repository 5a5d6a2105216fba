"""Counters of what one account, key or model uses in one router, each with its limit.

A meter is asked before a request runs and told afterwards what it really was; neither waits for
anybody. `Rate`, `Budget` and `InFlight` are a router's own: it enforces its share of the limit. The
leased ones (`leased.py`) share a limit with other routers through the store.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from serving.accounts.quota.period import period_of
from serving.catalogue import rate
from serving.catalogue.rate import SECOND

# When a request may come back that found a lease empty which is about to be renewed.
SOON = SECOND


class Unit(enum.IntEnum):
    """What a meter counts. Money is in billionths of the currency. A number, since it is looked up
    for each request: the hash of an enum's member is Python code."""

    REQUESTS = 0
    IN_FLIGHT = 1
    TOKENS = 2
    COST = 3


def unit_of(name: str) -> Unit:
    """The unit of a limit by its name in `Quota`."""
    if name == "requests_in_flight":
        return Unit.IN_FLIGHT
    return Unit[name.partition("_per_")[0].upper()]


class Meter(Protocol):
    """One limit. Times are nanoseconds since 1970."""

    name: str
    limit: int

    def take(self, units: int, now: int) -> int:
        """Count so many units if they fit: 0. Otherwise count nothing, and return in how many
        nanoseconds they may fit."""

    def charge(self, units: int, taken_at: int) -> None:
        """Count more units of a request that was let in at `taken_at`, or, if negative, give some
        back."""

    def left(self, now: int) -> int:
        """How much fits now."""

    def reset_s(self, now: int) -> float:
        """In how many seconds all of it will be free again."""


class Rate:
    """A router's share of a limit by the minute."""

    def __init__(self, name: str, limit: int, routers: Callable[[], int]) -> None:
        self.name = name
        self.limit = limit
        self._routers = routers
        self._tat = 0

    @property
    def _share(self) -> int:
        return share(self.limit, self._routers())

    def take(self, units: int, now: int) -> int:
        """See `Meter.take`."""
        limit = self._share
        if (wait := rate.wait(self._tat, now, units, limit)) > 0:
            return wait
        self._tat = rate.after(self._tat, now, units, limit)
        return 0

    def charge(self, units: int, taken_at: int) -> None:
        """See `Meter.charge`."""
        self._tat = rate.after(self._tat, taken_at, units, self._share)

    def left(self, now: int) -> int:
        """See `Meter.left`."""
        return max(0, rate.room(self._tat, now, self._share))

    def reset_s(self, now: int) -> float:
        """See `Meter.reset_s`."""
        return rate.refilled(self._tat, now)


class OfPeriod:
    """What is used in a day or a month, by the meter's name; it begins anew with each."""

    name: str
    _begins = _ends = _used = 0

    def charge(self, units: int, taken_at: int) -> None:
        """See `Meter.charge`. What a request of an earlier period gives back is no longer there."""
        if units > 0 or taken_at >= self._begins:
            self._used = max(0, self._used + units)

    def reset_s(self, now: int) -> float:
        """See `Meter.reset_s`."""
        self._roll(now)
        return (self._ends - now) / SECOND

    def _roll(self, now: int) -> None:
        if now >= self._ends:
            self._begins, self._ends = period_of(self.name, now)
            self._used = 0
            self._begin()

    def _begin(self) -> None:
        """A period has begun."""


class Budget(OfPeriod):
    """A router's share of a budget for a day or a month, counted since this router started."""

    def __init__(self, name: str, limit: int, routers: Callable[[], int]) -> None:
        self.name = name
        self.limit = limit
        self._routers = routers

    def take(self, units: int, now: int) -> int:
        """See `Meter.take`."""
        self._roll(now)
        if self._used + units > share(self.limit, self._routers()):
            return self._ends - now
        self._used += units
        return 0

    def left(self, now: int) -> int:
        """See `Meter.left`."""
        self._roll(now)
        return max(0, share(self.limit, self._routers()) - self._used)


class InFlight:
    """A router's share of the requests that may run at once."""

    def __init__(self, name: str, limit: int, routers: Callable[[], int]) -> None:
        self.name = name
        self.limit = limit
        self._routers = routers
        self.running = 0

    def take(self, units: int, now: int) -> int:
        """See `Meter.take`. Nobody knows when one ends: a second is a guess."""
        if self.running + units > share(self.limit, self._routers()):
            return SECOND
        self.running += units
        return 0

    def charge(self, units: int, taken_at: int) -> None:
        """See `Meter.charge`."""
        self.running += units

    def left(self, now: int) -> int:
        """See `Meter.left`."""
        return max(0, share(self.limit, self._routers()) - self.running)

    def reset_s(self, now: int) -> float:
        """See `Meter.reset_s`."""
        return 1.0 if self.running else 0.0


def share(limit: int, routers: int) -> int:
    """A router's part of a limit: what all have together is the limit, or one each if it is
    smaller than their number."""
    return limit if routers <= 1 else limit // routers or min(1, limit)
