"""Numbers drawn from the distributions of a scenario, and choices by weight."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

from loadtests.scenarios.distributions import (
    Distribution,
    Drawn,
    Exponential,
    Fixed,
    Lognormal,
    Uniform,
)
from loadtests.scenarios.errors import ScenarioError

Number = Callable[[Random], float]
Length = Callable[[Random], int]
T = TypeVar("T")


def number(distribution: Distribution) -> Number:
    """Return a function that draws from it. Raises ScenarioError for a file it cannot use."""
    if isinstance(distribution, Fixed):
        value = distribution.value
        return lambda rng: value
    if isinstance(distribution, Uniform):
        low, high = distribution.low, distribution.high
        return lambda rng: rng.uniform(low, high)
    if isinstance(distribution, Lognormal):
        mu, sigma = math.log(distribution.median), distribution.sigma
        least = distribution.low
        most = math.inf if distribution.high is None else distribution.high
        return lambda rng: min(most, max(least, rng.lognormvariate(mu, sigma)))
    if isinstance(distribution, Exponential):
        lambd = 1 / distribution.mean
        top = math.inf if distribution.high is None else distribution.high
        return lambda rng: min(top, rng.expovariate(lambd))
    values = numbers_of(distribution)
    return lambda rng: rng.choice(values)


def length(distribution: Distribution) -> Length:
    """Return a function that draws whole numbers, 1 and more."""
    if isinstance(distribution, Fixed):
        fixed = max(1, round(distribution.value))
        return lambda rng: fixed
    if isinstance(distribution, Uniform):
        # Rounding would draw the two ends half as often as the rest.
        low = max(1, math.ceil(distribution.low))
        span = max(1, math.floor(distribution.high) - low + 1)
        return lambda rng: low + int(rng.random() * span)
    draw = number(distribution)
    return lambda rng: max(1, round(draw(rng)))


def numbers_of(drawn: Drawn) -> list[float]:
    """Return the numbers of a file, one in a line; empty lines do not count.

    Raises ScenarioError, which names the line.
    """
    values = []
    for at, line in enumerate(read_lines(drawn.path), start=1):
        if text := line.strip():
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not 0 <= value < math.inf:
                raise ScenarioError(f"{drawn.path}:{at}: {text!r} is no number of 0 or more")
            values.append(value)
    if not values:
        raise ScenarioError(f"{drawn.path}:1: the file has no numbers; write one in each line")
    return values


def read_lines(path: str) -> list[str]:
    """Return a file's lines. Raises ScenarioError."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ScenarioError(f"{path}: cannot be read: {reason}") from None


class Weighted(Generic[T]):
    """Draws one of several, each in proportion to its weight.

    By bisection of the cumulative weights: less than a microsecond for thousands.
    """

    def __init__(self, items: Sequence[T], weights: Sequence[float]) -> None:
        self.items = items
        self._sums = list(accumulate(weights))
        self._total = self._sums[-1]
        self._last = len(items) - 1

    def draw(self, rng: Random) -> T:
        """Return one of the items."""
        if not self._last:
            return self.items[0]
        # A sum may be rounded up to the total: then the last one is meant.
        return self.items[min(self._last, bisect_right(self._sums, rng.random() * self._total))]


def zipf_weights(count: int, exponent: float) -> list[float]:
    """Return the weights of Zipf's law: the n-th has n ** -exponent."""
    return [n**-exponent for n in range(1, count + 1)]
