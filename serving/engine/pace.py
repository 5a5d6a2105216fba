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
# So many may run before steps were seen.
FIRST = 32
# What is left at each step that was too long, and what comes back, up to that number, with each
# short step of fewer sequences: what made steps long may be over.
LESS, BACK = 0.95, 0.25
# A step with so many tokens of prompts for each sequence is long for those.
PROMPTS = 8


class Pace:
    """What steps have taken, and how many sequences may run for it.

    Args:
        limit: sequences that the engine runs at most.
        step_s: what a step may take, in seconds; 0: as long as it likes.
    """

    def __init__(self, limit: int, step_s: float) -> None:
        self._limit = limit
        self._step_s = step_s
        self._first = float(min(limit, FIRST))
        self._most = self._first if step_s else float(limit)
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

    def step(self, now: float, running: int, prompts: int = 0) -> None:
        """Take note of the end of a step; the next one begins if anything runs.

        Args:
            now: of a clock in seconds that does not go back.
            running: sequences that the core has now.
            prompts: tokens of the prompts that it has run in this step.
        """
        if not self.bounded:
            return
        began, self._began = self._began, now if running else None
        if began is None:
            return
        took = now - began
        if took > self._step_s and prompts > PROMPTS * max(1, running):
            return
        self._mean += NEWEST * (took - self._mean)
        if self._mean <= self._step_s:
            if running >= self.most:
                self._most = min(float(self._limit), self._most + 1)
            elif self._most < self._first:
                self._most = min(self._first, self._most + BACK)
        elif running <= self.most:
            # With more of them it is not this number that makes the step long.
            self._most = max(float(min(LEAST, self._limit)), self._most * LESS)
