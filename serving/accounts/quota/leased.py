"""Meters of limits that routers share: each holds a lease, a part of what is left, from the store.

A request is compared with the lease, which is in memory. `lender.py` renews leases in the
background. What a router has used is charged at the next renewal, so all routers together may use
one lease each beyond a limit, and no more. A lease is the router's part of a fifth of the limit, or
what a single request needs if that is more, and of what is left of a budget at most the router's
part: it shrinks to nothing as the budget runs out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from serving.accounts.quota.meter import SOON, OfPeriod, Unit, share, unit_of
from serving.catalogue.rate import MINUTE, SECOND
from serving.errors import StoreUnavailable
from serving.store.quota_leases import BudgetAsk, BudgetLease, RateAsk, RateLease

# A budget's lease is renewed at least so often, so that the store knows that its router lives.
RENEW = 10 * SECOND


# A lease has so much at least where the limit has it: room for a request that nobody foresaw.
LEAST = {Unit.REQUESTS: 4, Unit.TOKENS: 1024, Unit.COST: 1}


def lease_of(name: str, limit: int, routers: int) -> int:
    """The most that one router holds of a limit: its part of a fifth, or, of a small limit, at most
    its part of the whole."""
    return _lease(LEAST[unit_of(name)], limit, routers)


def _lease(least: int, limit: int, routers: int) -> int:
    return max(share(limit // 5, routers), min(least, share(limit, routers)))


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a limit is leased.

    Attributes:
        routers: how many routers there are.
        pool: the limit's name in the store.
        blocks: refuse requests that the lease does not cover while the store is away.
        low: called when a lease is half used.
    """

    routers: Callable[[], int]
    pool: str
    blocks: bool
    low: Callable[[], None]


class Leased(ABC):
    """What both kinds of leases have."""

    def __init__(self, name: str, limit: int, terms: Terms) -> None:
        self.name = name
        self.limit = limit
        self.pool = terms.pool
        self.away = False
        self.used_at = 0
        self._heard = False
        self._routers = terms.routers
        self._least = LEAST[unit_of(name)]
        self._blocks = terms.blocks
        self._low = terms.low
        # A request that found the lease too small wants so much.
        self._wanted = 0

    @abstractmethod
    def ask(self, now: int, *, ending: bool = False) -> RateAsk | BudgetAsk | None:
        """What to ask of the store; None: nothing. `ending`: give the lease back."""

    def _credit(self, units: int) -> int:
        """How much more than its lease a router may use before it has heard of the store, so that
        its first request passes: a lease is what one request needs at least."""
        first = not self._heard and not self.used_at and units <= self.limit
        return max(0, units - self.lease) if first else 0

    @property
    def lease(self) -> int:
        """How much this router may hold."""
        return max(_lease(self._least, self.limit, self._routers()), min(self._wanted, self.limit))

    def _refuse(self, units: int, otherwise: int) -> int:
        """What `take` returns for units that the lease does not cover; 0 if they pass all the same.

        Raises:
            StoreUnavailable: nobody knows whether they fit.
        """
        self._wanted = max(self._wanted, units)
        self._low()
        if not self.away:
            return otherwise
        if self._blocks:
            raise StoreUnavailable(
                f"the store is away, and the limit {self.name} is not passed without it",
                retry_after_s=5,
            )
        return 0


class LeasedRate(Leased):
    """A limit by the minute. It begins with a lease on credit, which the first renewal charges."""

    def __init__(self, name: str, limit: int, terms: Terms) -> None:
        super().__init__(name, limit, terms)
        self._left = self._owed = self._told = self.lease
        self._known: RateLease | None = None

    def take(self, units: int, now: int) -> int:
        """See `Meter.take`. Raises `StoreUnavailable`."""
        more = self._credit(units)
        self._left += more
        self._owed += more
        self.used_at = now
        if units > self._left:
            if wait := self._refuse(units, max(SOON, self._wait(units, now))):
                return wait
        elif 2 * (self._left - units) < self.lease:
            self._low()
        self.charge(units, now)
        return 0

    def charge(self, units: int, taken_at: int) -> None:
        """See `Meter.charge`. What goes beyond the lease is owed; of what is given back no more is
        kept than a lease."""
        self._left = min(self._left - units, max(self.lease, self._left))
        if self._left < 0:
            self._owed -= self._left
            self._left = 0

    def left(self, now: int) -> int:
        """See `Meter.left`: in the store when it was last asked, and here."""
        if self._known is None:
            return self.limit - self._owed + self._left
        since = (now - self._known.at) * self.limit // MINUTE
        return max(self._left, min(self.limit, self._known.room + since + self._left))

    def reset_s(self, now: int) -> float:
        """See `Meter.reset_s`."""
        if not self.limit:
            return 60.0
        return (self.limit - min(self.limit, self.left(now))) * 60 / self.limit

    def ask(self, now: int, *, ending: bool = False) -> RateAsk | None:
        """See `Leased.ask`. What is left of a rate's lease when its router ends is lost."""
        if not self._owed and 2 * self._left >= self.lease:
            return None
        self._told = self._owed
        want = max(0, self.lease - self._left)
        # After an outage no more than a minute's worth is charged.
        return RateAsk(self.pool, self.limit, min(self._owed, self.limit), want)

    def renew(self, asked: RateAsk, lease: RateLease) -> None:
        """Take what the store has granted."""
        self._heard = True
        self._owed -= self._told
        self._left += lease.granted
        self._known = lease
        self._wanted = 0 if self._left >= self._wanted else self._wanted

    def _wait(self, units: int, now: int) -> int:
        short = units - self.left(now)
        return short * MINUTE // self.limit if self.limit else MINUTE


class LeasedBudget(OfPeriod, Leased):
    """A budget for a day or a month. What is used and what is granted are counted from the period's
    beginning, so that a renewal may be sent again."""

    def __init__(self, name: str, limit: int, terms: Terms) -> None:
        super().__init__(name, limit, terms)
        self._granted = self._others = 0
        self._told = self._told_at = 0
        # The store had less than a lease to give.
        self._scarce = False

    def take(self, units: int, now: int) -> int:
        """See `Meter.take`. Raises `StoreUnavailable`."""
        self._roll(now)
        self._granted += self._credit(units)
        self.used_at = now
        left = self._granted - self._used
        if units > left:
            fits = units <= self.limit - self._others - self._used
            if wait := self._refuse(units, SOON if fits else self._ends - now):
                return wait
        elif 2 * (left - units) < self.lease:
            self._low()
        self._used += units
        return 0

    def left(self, now: int) -> int:
        """See `Meter.left`: of all routers, as last heard."""
        self._roll(now)
        return max(0, self.limit - self._others - self._used)

    def ask(self, now: int, *, ending: bool = False) -> BudgetAsk | None:
        """See `Leased.ask`."""
        self._roll(now)
        enough = 2 * (self._granted - self._used) >= self.lease
        if self._used == self._told and enough and now - self._told_at < RENEW and not ending:
            return None
        unasked = now - self.used_at > RENEW
        want = 0 if ending or (self._scarce and unasked) else self.lease
        need = min(self._wanted, want)
        return BudgetAsk(self.pool, self._begins // SECOND, self.limit, self._used, want, need)

    def renew(self, asked: BudgetAsk, lease: BudgetLease) -> None:
        """Take what the store has granted."""
        if asked.period != self._begins // SECOND:
            return  # of a period that is over
        self._heard = True
        if asked.want:
            self._scarce = lease.granted - asked.used < asked.want
        self._granted, self._others = lease.granted, lease.others
        self._told, self._told_at = asked.used, lease.at
        self._wanted = 0 if self._granted - self._used >= self._wanted else self._wanted

    def _begin(self) -> None:
        self._others = self._told = self._told_at = self.used_at = 0
        self._heard = self._scarce = False
        # On credit, until the store has been heard.
        self._granted = self.lease
