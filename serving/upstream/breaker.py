"""A circuit breaker: a provider that is down is not asked for a while.

Michael Nygard, *Release It!* (2007); the states are those of Fowler's "CircuitBreaker" (2014):

- closed: everything passes; `failures` failures in a row open it.
- open: nothing passes for `open_s`.
- half-open: one request passes, the probe. If it succeeds the circuit is closed, if it fails it is
  open again. While the probe is on its way nothing else passes.

Only the provider's own failures count (no connection, no answer in time, 5xx): what the caller did
wrong says nothing about the provider, nor does a request that was cancelled. An answer that begins
closes a half-open circuit at once; a closed one forgets its failures only when an answer is
complete, so that a provider whose streams all break off is found out too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]
STATES: tuple[State, ...] = ("closed", "open", "half_open")


class CircuitOpen(Exception):
    """The circuit lets nothing pass; `retry_after_s` says for how long."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"open for {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class Breaker:
    """One provider's circuit.

    Args:
        failures: how many failures in a row open it.
        open_s: how long nothing passes, in seconds.
        on_change: called with the new state.
    """

    def __init__(
        self,
        failures: int,
        open_s: float,
        *,
        on_change: Callable[[State], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures = failures
        self._open_s = open_s
        self._on_change = on_change
        self._clock = clock
        self._failed = 0
        self._until = 0.0
        self._probe: Permit | None = None
        self.state: State = "closed"

    def enter(self) -> Permit:
        """Permission to send one request; the permit must be told how it went.

        Raises:
            CircuitOpen: nothing passes now.
        """
        if self.state == "closed":
            return Permit(self)
        remaining = self._until - self._clock()
        if remaining > 0 or self._probe is not None:
            # A probe takes as long as it takes; ask again soon.
            raise CircuitOpen(max(remaining, 1.0))
        self._probe = permit = Permit(self)
        self._set("half_open")
        return permit

    def _set(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._on_change(state)

    # called by permits

    def answers(self, permit: Permit) -> None:
        if permit is self._probe:
            self._probe = None
            self._failed = 0
            self._set("closed")

    def succeeded(self, permit: Permit) -> None:
        self.answers(permit)
        if self.state == "closed":
            self._failed = 0

    def failed(self, permit: Permit) -> None:
        self._failed += 1
        if permit is self._probe or (self.state == "closed" and self._failed >= self.failures):
            self._probe = None
            self._until = self._clock() + self._open_s
            self._set("open")

    def left(self, permit: Permit) -> None:
        if permit is self._probe:  # it said nothing; the next request is the probe
            self._probe = None


class Permit:
    """Permission to send one request. Of `success`, `failure`, `refused` and `neither` only the
    first call counts."""

    __slots__ = ("_breaker", "_used")

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._used = False

    def answers(self) -> None:
        """The provider has begun to answer well."""
        self._breaker.answers(self)

    def success(self) -> None:
        self._use(self._breaker.succeeded)

    def failure(self) -> None:
        self._use(self._breaker.failed)

    def refused(self) -> None:
        """It answered with a refusal: it is up, but earlier failures still count."""
        self._use(self._breaker.answers)

    def neither(self) -> None:
        """Cancelled: that says nothing about the provider."""
        self._use(self._breaker.left)

    def _use(self, tell: Callable[[Permit], None]) -> None:
        if not self._used:
            self._used = True
            tell(self)
