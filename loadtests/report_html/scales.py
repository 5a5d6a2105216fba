"""From values to places on an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
# Steps of a clock in seconds, for the time of a run.
CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


@dataclass(frozen=True)
class Scale:
    """Puts `low` at `start` and `high` at `end`, evenly or by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, part)) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values, about `count` of them (a logarithmic axis: decades, or 1, 2 and 5)."""
        if self.log:
            return self._decades(count)
        step = nice_step((self.high - self.low) / max(1, count))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _decades(self, count: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        wide = math.log10(self.high / self.low)
        every = max(1, math.ceil(wide / (count + 1)))
        parts = (1, 2, 5) if wide < 0.5 * count else (1, 3) if wide < 0.8 * count else (1,)
        return [
            part * 10.0**power
            for power in powers
            if power % every == 0
            for part in parts
            if self.low * 0.999 <= part * 10.0**power <= self.high * 1.001
        ]


def nice_step(rough: float) -> float:
    """The next 1, 2, 2.5 or 5 times a power of ten."""
    size = 10.0 ** math.floor(math.log10(rough))
    return next(step * size for step in STEPS if step * size >= rough * 0.999)


def clock_step(seconds: float, count: int) -> int:
    """The time between two ticks of so many in a run."""
    return next((step for step in CLOCK if seconds / step <= count), CLOCK[-1])


def linear(values: Iterable[float], start: float, end: float) -> Scale:
    """From 0 (or below) to just above the greatest value."""
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(0.0, *known, 0.0), max(0.0, *known, 0.0)
    if low == high:
        high = low + 1
    step = nice_step((high - low) / 4)
    return Scale(math.floor(low / step) * step, math.ceil(high / step - 1e-9) * step, start, end)


def logarithmic(values: Iterable[float], start: float, end: float) -> Scale:
    """From just below the least value above 0 to just above the greatest: 1, 2, 5 times ten."""
    known = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    low, high = _round(min(known), up=False), _round(max(known), up=True)
    return Scale(low, high if high > low else low * 10, start, end, log=True)


def _round(value: float, up: bool) -> float:
    size = 10.0 ** math.floor(math.log10(value))
    parts = (1, 2, 5, 10)
    if up:
        return next(part * size for part in parts if part * size >= value * (1 - 1e-9))
    return next(part * size for part in reversed(parts) if part * size <= value * (1 + 1e-9))
