"""How many connections one server holds, and which one goes when there are too many.

Room is made by the connection that has been without a request for the longest time: between two
requests, or because its first is slow to come. So whoever only opens connections takes no room from
those who use theirs. Only when all of them have requests that are being answered is the new one
refused. Nothing goes by the caller's address: behind a proxy all callers have the same.

A connection that is being closed keeps its socket until its client has read why, and does not
count; of these too there are only so many.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

from serving.errors import Overloaded, ServingError

RETRY_AFTER_S = 5.0
# Connections that are being closed, for each that may be open, and at least so many.
LEAVING_SHARE = 8
LEAVING_MIN = 16


class Member(Protocol):
    """A connection, as far as its place among the others goes."""

    def give_up(self, why: ServingError) -> None:
        """Close, with an answer if a request may be on its way; `leaves` follows."""

    def abort(self) -> None:
        """Close at once."""


class Crowd:
    """The connections of one server.

    Args:
        connections: all of them, those included that are being closed.
        limit: how many may be open; None: as many as the system allows.
    """

    def __init__(self, connections: Sized, limit: int | None) -> None:
        self._connections = connections
        self._limit = limit
        self._most_leaving = max(LEAVING_MIN, (limit or 0) // LEAVING_SHARE)
        # Both in the order of time, the oldest first.
        self._waiting: dict[Member, None] = {}
        self._leaving: dict[Member, None] = {}

    def waits(self, member: Member) -> None:
        """It has no request that is being answered."""
        self._waiting[member] = None

    def works(self, member: Member) -> None:
        """Its next request has begun."""
        self._waiting.pop(member, None)

    def leaves(self, member: Member) -> None:
        """It is being closed."""
        self._waiting.pop(member, None)
        self._leaving[member] = None
        if self._limit is not None and len(self._leaving) > self._most_leaving:
            # One that has been lost by now leaves the list as the event loop says so.
            oldest = next(iter(self._leaving))
            del self._leaving[oldest]
            oldest.abort()

    def gone(self, member: Member) -> None:
        self._waiting.pop(member, None)
        self._leaving.pop(member, None)

    def enters(self, member: Member) -> None:
        """A new connection, already among `connections`. It waits from now on, or is given up."""
        if self._limit is not None and self._open > self._limit:
            why = Overloaded(
                f"this server has {self._limit} connections open, which is the limit; try again "
                f"in {RETRY_AFTER_S:.0f} s",
                retry_after_s=RETRY_AFTER_S,
            )
            chosen = next(iter(self._waiting), member)
            chosen.give_up(why)
            self._waiting.pop(chosen, None)
            if chosen is member:
                return
        self.waits(member)

    @property
    def _open(self) -> int:
        return len(self._connections) - len(self._leaving)
