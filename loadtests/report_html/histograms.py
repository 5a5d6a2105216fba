"""The distribution that a summary's histogram holds."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from hdrh.histogram import HdrHistogram

from loadtests.measure.summary import Latency


@dataclass(frozen=True)
class Distribution:
    """Values in milliseconds, each with the count of all up to it."""

    values: Sequence[float]
    counts: Sequence[int]

    @property
    def total(self) -> int:
        """How many values there are."""
        return self.counts[-1] if self.counts else 0

    def share_up_to(self, value: float) -> float:
        """Which share of the values is not above this one."""
        place = bisect.bisect_right(self.values, value)
        return self.counts[place - 1] / self.total if place else 0.0

    def percentile(self, share: float) -> float:
        """The least value that this share of all is not above."""
        place = bisect.bisect_left(self.counts, min(self.total, max(1, share * self.total - 1e-6)))
        return self.values[place]


def distribution(latency: Latency) -> Distribution:
    """Decode it. Raises what `hdrh` raises of a histogram that is none."""
    found = HdrHistogram.decode(latency.histogram)
    # The library's own iterator looks at each empty bucket by five calls, and took most of the time
    # that a report takes.
    filled = found.counts[: found.encoder.payload.counts_len]
    pairs = [
        (found.get_highest_equivalent_value(found.get_value_from_index(index)) / 1000, count)
        for index, count in enumerate(filled)
        if count
    ]
    return Distribution(
        [value for value, _ in pairs], list(accumulate(count for _, count in pairs))
    )
