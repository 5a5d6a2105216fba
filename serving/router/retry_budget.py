"""How many requests may be sent to a second replica.

Retries are at most `SHARE` of a router's requests over the last `WINDOW_S` seconds, and `FLOOR`
more, so that an idle service may retry too. Without a bound, replicas that fail under load get up
to twice the load for it. That is Finagle's `RetryBudget` (twitter.github.io/finagle/guide/
Clients.html#retries) and the per-client retry budget of "Handling Overload" in Google's book on
site reliability engineering (sre.google/sre-book/handling-overload), which has the 10 %.

Requests and retries are counted in `PARTS` parts of the window, of which the oldest is dropped
when a new one begins; so counting costs the same however many there are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SHARE = 0.1
FLOOR = 20
WINDOW_S = 60.0
PARTS = 12


class RetryBudget:
    """The budget of one router. `clock` is the time in seconds, of any origin."""

    def __init__(
        self,
        *,
        share: float = SHARE,
        floor: int = FLOOR,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._floor = floor
        self._part_s = window_s / PARTS
        self._clock = clock
        # Requests and retries of each part; the newest comes last.
        self._parts: deque[list[int]] = deque([[0, 0]], maxlen=PARTS)
        self._next = clock() + self._part_s

    def request(self) -> None:
        """Count a request."""
        self._turn()
        self._parts[-1][0] += 1

    def take(self) -> bool:
        """True if a request may be sent once more, which counts as a retry then."""
        self._turn()
        requests = sum(part[0] for part in self._parts)
        retries = sum(part[1] for part in self._parts)
        if retries + 1 > self._floor + self._share * requests:
            return False
        self._parts[-1][1] += 1
        return True

    def give_back(self) -> None:
        """Take back what `take` counted: the request is not sent once more after all."""
        self._turn()
        self._parts[-1][1] -= 1

    def _turn(self) -> None:
        """Begin the parts of the window that are due."""
        now = self._clock()
        if now < self._next:
            return
        due = 1 + int((now - self._next) / self._part_s)
        self._parts.extend([0, 0] for _ in range(min(due, PARTS)))
        self._next += due * self._part_s
