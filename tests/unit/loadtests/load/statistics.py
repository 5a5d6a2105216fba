"""Tests of distributions. Seeds are fixed, so that a test passes always or never."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

# By chance a right distribution would fail one in a thousand seeds.
KOLMOGOROV = 1.95
SIGMAS = 3.3


def kolmogorov(values: Sequence[float], cdf: Callable[[float], float]) -> float:
    """The statistic of Kolmogorov and Smirnov, times the root of the number of values."""
    ordered = sorted(values)
    count = len(ordered)
    distances = (
        max((place + 1) / count - cdf(value), cdf(value) - place / count)
        for place, value in enumerate(ordered)
    )
    return max(distances) * math.sqrt(count)


def chi_square(seen: Sequence[int], expected: Sequence[float]) -> float:
    """By how many standard deviations chi square is above what it should be."""
    assert min(expected) > 5
    chi = sum((s - e) ** 2 / e for s, e in zip(seen, expected, strict=True))
    free = len(seen) - 1
    return (chi - free) / math.sqrt(2 * free)


def uniform(value: float) -> float:
    return min(1.0, max(0.0, value))


def exponential(value: float) -> float:
    return 1 - math.exp(-value)


def normal(value: float) -> float:
    return (1 + math.erf(value / math.sqrt(2))) / 2


def gaps(times: Sequence[float]) -> list[float]:
    return [b - a for a, b in pairwise(times)]
