"""How many sequences an engine runs at a time, for a step to take no longer than it may.

A step computes one token of every sequence that runs, so each request waits for all others in every
token, and a new one for the step under way. How much a further sequence adds depends on model and
machine, so it is not computed: while steps are short enough and all that may run do run, one more
may each step; when they take too long, fewer may (additive increase, multiplicative decrease, as
TCP finds its rate).
"""

from __future__ import annotations

# Fewer than these never have to do with each other.
LEAST = 4
# Of the mean of step times, what the newest counts for.
NEWEST = 0.25
# What is left at each step that was too long.
LESS = 0.95


class Pace:
    """What steps have taken, and how many sequences may run for it.

    Args:
        limit: sequences that the engine runs at most.
        step_s: what a step may take, in seconds; 0: as long as it likes.
    """

    def __init__(self, limit: int, step_s: float) -> None:
        self._limit = limit
        self._step_s = step_s
        self._most = float(min(limit, 32) if step_s else limit)
        self._began: float | None = None
        self._mean = 0.0

    @property
    def bounded(self) -> bool:
        """False if steps may take as long as they like; then nothing need be noted."""
        return self._step_s > 0

    @property
    def most(self) -> int:
        """Sequences that may run."""
        return int(self._most)

    def step(self, now: float, running: int) -> None:
        """Take note of the end of a step; the next one begins if anything runs.

        Args:
            now: of a clock in seconds that does not go back.
            running: sequences that the core has now.
        """
        if not self.bounded:
            return
        began, self._began = self._began, now if running else None
        if began is None:
            return
        self._mean += NEWEST * (now - began - self._mean)
        if self._mean <= self._step_s:
            if running >= self.most:
                self._most = min(float(self._limit), self._most + 1)
        elif running <= self.most:
            # With more of them it is not this number that makes the step long.
            self._most = max(float(min(LEAST, self._limit)), self._most * LESS)
