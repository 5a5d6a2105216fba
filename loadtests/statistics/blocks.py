"""Figures of a run cut into blocks of time, and how sure they are.

Requests of one run are not independent: they come in bursts, wait in one queue and share a machine.
Blocks of many seconds are nearly so, whatever goes on inside them. So a block is the unit: the
variance of a figure is what the blocks' own deviations say (the ratio estimator of cluster
sampling, W. G. Cochran, Sampling Techniques, 1977, chapter 6), its interval is Student's with one
degree of freedom less than there are blocks (R. Ibragimov and U. Müller, "t-statistic based
correlation and heterogeneity robust inference", 2010), and what dependence is left between
neighbouring blocks widens it, as of an autoregressive process of the first order.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

# Values are counted in bins that are 0.1% wide: a run has millions of them.
_BINS = 1000.0
NEVER = 1 << 40  # the bin of what never came
_DEPENDENCE = 0.9  # more than this cannot be told from a trend


@dataclass(frozen=True)
class Mean:
    """A ratio of sums over blocks: a share of requests, or a count per second."""

    value: float
    deviations: Sequence[float]  # of each block, in units of the value; they sum up to 0
    used: int  # blocks that have anything

    @classmethod
    def of(cls, parts: Sequence[float], of: Sequence[float]) -> Mean:
        """Sum of `parts` over sum of `of`. Raises ZeroDivisionError if the latter is 0."""
        whole = sum(of)
        value = sum(parts) / whole
        deviations = [(part - value * size) / whole for part, size in zip(parts, of, strict=True)]
        return cls(value, deviations, sum(size > 0 for size in of))

    @property
    def dof(self) -> int:
        """Degrees of freedom of Student's distribution."""
        return self.used - 1

    @cached_property
    def error(self) -> float:
        """The standard error."""
        return spread(self.deviations, self.used)


def spread(deviations: Sequence[float], used: int) -> float:
    """The standard error of a sum of block deviations, widened if neighbours go together."""
    if used < 2:
        return math.inf
    squares = sum(each * each for each in deviations)
    beside = sum(one * other for one, other in pairwise(deviations))
    together = min(_DEPENDENCE, max(0.0, beside / squares)) if squares else 0.0
    return math.sqrt(used / (used - 1) * squares * (1 + together) / (1 - together))


class Sample:
    """Values above 0 of one measure, counted by block and by bin."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._cells: list[Counter[int]] = [Counter() for _ in range(blocks)]

    def add(self, block: int, value: float) -> None:
        """One value; infinite: it never came."""
        self._cells[block][bin_of(value)] += 1

    @cached_property
    def sizes(self) -> list[int]:
        """How many values each block has. Nothing may be added from now on."""
        return [sum(cell.values()) for cell in self._cells]

    @cached_property
    def total(self) -> int:
        """How many values there are."""
        return sum(self.sizes)

    @cached_property
    def _pooled(self) -> tuple[list[int], list[int]]:
        whole: Counter[int] = Counter()
        for cell in self._cells:
            whole.update(cell)
        bins = sorted(whole)
        return bins, list(accumulate(whole[each] for each in bins))

    @cached_property
    def _blocks(self) -> list[tuple[list[int], list[int]]]:
        return [
            (bins := sorted(cell), [0, *accumulate(cell[each] for each in bins)])
            for cell in self._cells
        ]

    def quantile(self, share: float) -> float:
        """The value that this share of all is not above; infinite above all of them."""
        bins, counts = self._pooled
        if share <= 0:
            return 0.0
        rank = share * self.total - 1e-9
        place = bisect_left(counts, rank)
        return math.inf if place >= len(bins) or share > 1 else value_of(bins[place])

    def above(self, value: float) -> Mean:
        """The share of values above this one."""
        edge = bin_of(value)
        parts = [counts[-1] - counts[bisect_right(bins, edge)] for bins, counts in self._blocks]
        return Mean.of(parts, self.sizes)


def bin_of(value: float) -> int:
    """The bin of a value."""
    if math.isinf(value):
        return NEVER
    return round(math.log(max(value, 1e-6)) * _BINS)


def value_of(bin_: int) -> float:
    """The middle of a bin."""
    return math.inf if bin_ == NEVER else math.exp(bin_ / _BINS)
