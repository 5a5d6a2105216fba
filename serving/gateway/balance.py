"""Which replica a request goes to.

Fewest requests first, counted live: the router's own requests as of now, the other routers' as of
the replica's last report (at most 20 ms old when something changed; `ReplicaLink.busy` says what is
assumed beyond it). Counting beats round robin
because completions differ in length by orders of magnitude.

A request for an adapter prefers a replica that holds it, until that replica is `SPREAD` requests
busier than the least busy one: then another load of the adapter is cheaper than the queue. While
nobody holds it, rendezvous hashing (Thaler and Ravishankar, 1996) makes all routers start with
the same replica, so that they do not load it everywhere at once.

With more than `SCAN` replicas a random sample is compared instead of all of them; two choices
already bring the longest queue close to the best (Mitzenmacher, 2001).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar
from zlib import crc32

SPREAD = 4
SCAN = 16
SAMPLE = 4


class Candidate(Protocol):
    """What the choice looks at."""

    replica: str
    adapters: set[str]

    @property
    def busy(self) -> int: ...


C = TypeVar("C", bound=Candidate)


def choose(candidates: Sequence[C], adapter: str | None, rng: random.Random) -> C:
    """One of `candidates`, which must not be empty."""
    if len(candidates) == 1:
        return candidates[0]
    if adapter is not None:
        return _choose_for_adapter(candidates, adapter, rng)
    return _least_busy(candidates, rng)


def _least_busy(candidates: Sequence[C], rng: random.Random) -> C:
    if len(candidates) > SCAN:
        candidates = rng.sample(candidates, SAMPLE)
    fewest = min(candidate.busy for candidate in candidates)
    return rng.choice([candidate for candidate in candidates if candidate.busy == fewest])


def _choose_for_adapter(candidates: Sequence[C], adapter: str, rng: random.Random) -> C:
    other = _least_busy(candidates, rng)
    holders = [candidate for candidate in candidates if adapter in candidate.adapters]
    if holders:
        holder = _least_busy(holders, rng)
        return holder if holder.busy <= other.busy + SPREAD else other
    first = max(candidates, key=lambda c: crc32(f"{adapter}\0{c.replica}".encode()))
    return first if first.busy <= other.busy + SPREAD else other
