"""Which replica a request goes to.

The replica with the fewest requests is chosen, counted live: the router's own requests as of now,
the other routers' as of the replica's last report. A report is at most 20 ms old when something
changed; `ReplicaLink.busy` says what is assumed beyond it. Counting beats round robin because
completions differ in length by orders of magnitude.

A request for an adapter prefers a replica that holds it, until that replica is `SPREAD` requests
busier than the least busy one: then loading the adapter once more is cheaper than the queue. While
no replica holds it, a hash ring (Karger et al., 1997) makes all routers start with the same
replica, so that they do not load it everywhere at once.

Of more than `SCAN` candidates a random sample is compared instead of all of them; two choices
already bring the longest queue close to the best (Mitzenmacher, 2001). With that and the indexes
kept here, a choice among a thousand replicas costs what one among two does.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar
from zlib import crc32

SPREAD = 4
SCAN = 16
SAMPLE = 4
# Points of each replica on the ring; more make the shares of the replicas more equal.
POINTS = 16


class Candidate(Protocol):
    """What the choice needs to know of a replica."""

    replica: str

    @property
    def up(self) -> bool: ...

    @property
    def busy(self) -> int: ...


C = TypeVar("C", bound=Candidate)


class Pool(Generic[C]):
    """The replicas of one model, and which of them hold which adapter."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._holders: dict[str, list[C]] = {}
        self._points: list[int] = []
        self._owners: list[C] = []
        self.up: list[C] = []

    def set_up(self, replicas: Iterable[C]) -> None:
        """Replace the replicas that may be chosen."""
        self.up = list(replicas)
        ring = sorted(
            ((_hash(f"{replica.replica}\0{point}"), replica) for replica in self.up
             for point in range(POINTS)),
            key=lambda place: place[0],
        )  # fmt: skip
        self._points = [point for point, _ in ring]
        self._owners = [replica for _, replica in ring]

    def holds(self, replica: C, adapter: str, held: bool) -> None:
        """Note that `replica` has loaded `adapter`, or dropped it."""
        holders = self._holders.setdefault(adapter, [])
        if held:
            holders.append(replica)
        else:
            holders.remove(replica)
            if not holders:
                del self._holders[adapter]

    def choose(
        self,
        adapter: str | None,
        exclude: frozenset[str] = frozenset(),
        home: str | None = None,
        beside: str | None = None,
    ) -> C | None:
        """A replica that is up and not excluded; None if there is none. With a `home` it is the
        same for all requests that have it, at every router; else the one named `beside`, if it can
        be chosen."""
        up = self.up
        if exclude:
            up = [replica for replica in up if replica.replica not in exclude]
        if not up:
            return None
        if len(up) == 1:
            return up[0]
        if home is not None:
            return self._home(home, exclude)
        if beside is not None:
            for replica in up:
                if replica.replica == beside:
                    return replica
        other = self._least_busy(up)
        if adapter is None:
            return other
        preferred = self._holder(adapter, exclude) or self._home(adapter, exclude)
        return preferred if preferred.busy <= other.busy + SPREAD else other

    def _least_busy(self, candidates: Sequence[C]) -> C:
        if len(candidates) > SCAN:
            candidates = self._rng.sample(candidates, SAMPLE)
        fewest = min(candidate.busy for candidate in candidates)
        return self._rng.choice([at for at in candidates if at.busy == fewest])

    def _holder(self, adapter: str, exclude: frozenset[str]) -> C | None:
        holders: Sequence[C] = self._holders.get(adapter, ())
        if len(holders) > SCAN:
            holders = self._rng.sample(holders, SAMPLE)
        holders = [at for at in holders if at.up and at.replica not in exclude]
        return self._least_busy(holders) if holders else None

    def _home(self, name: str, exclude: frozenset[str]) -> C:
        """The first replica on the ring, from the name's place on, that is not excluded. The
        caller knows that there is one."""
        at = bisect(self._points, _hash(name))
        while (owner := self._owners[at % len(self._owners)]).replica in exclude:
            at += 1
        return owner


def _hash(name: str) -> int:
    return crc32(name.encode())
