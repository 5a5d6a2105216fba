"""A histogram of times, exact to three digits, that costs little while it is filled.

Buckets are those of HdrHistogram with values from 1 us to an hour and three significant digits
(https://hdrhistogram.github.io/HdrHistogram/); `encode` hands them to the library `hdrhistogram`,
whose V2 form other tools read. The library's own object takes 188 kB from its first value on and
2.4 us for each; a run over thousands of models has tens of thousands of histograms, most of them
with a few values. So values are kept as they are (4 bytes each) until there are `FOLD` of them, and
then as counts of the range of buckets that they cover.

Everything is an integer, so merging is exact and its order does not matter: what a histogram says
is a function of the values in it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtests.measure.summary import Latency

TOP = 3_600_000_000  # us: an hour; longer times count as one
DIGITS = 3
FOLD = 4096  # values that are kept as they are
_CHUNK = 1024  # values that are collected before they are counted, from then on
_BITS = 10  # log2 of the buckets of one power of two
_HALF = 1 << _BITS
_LOW = 2 * _HALF - 1  # values up to this have a bucket each

# n, sum, min, max, values as bytes, first bucket, counts as bytes.
State = tuple[int, int, int, int, bytes, int, bytes]


def micros(seconds: float) -> int:
    """Microseconds, as histograms take them: not below 0 and not above an hour."""
    us = int(seconds * 1e6 + 0.5)
    return 0 if us < 0 else min(us, TOP)


def bucket_of(us: int) -> int:
    """The bucket of a value."""
    shift = (us | _LOW).bit_length() - _BITS - 1
    return (shift << _BITS) + (us >> shift)


def top_of(bucket: int) -> int:
    """The highest value of a bucket."""
    shift = (bucket >> _BITS) - 1
    if shift < 0:
        return bucket
    return (((bucket & (_HALF - 1)) + _HALF + 1) << shift) - 1


class Histogram:
    """Times in microseconds."""

    __slots__ = ("_counts", "_first", "_limit", "_max", "_min", "_n", "_sum", "_values")

    def __init__(self) -> None:
        self._values = array("I")  # not yet counted
        self._limit = FOLD
        self._counts: array[int] | None = None  # of the buckets from `_first` on
        self._first = 0
        # Of what has been counted.
        self._n = self._sum = self._max = 0
        self._min = TOP

    def add(self, us: int) -> None:
        """One value, as `micros` makes it."""
        values = self._values
        values.append(us)
        if len(values) >= self._limit:
            self._fold()

    def extend(self, us: array[int]) -> None:
        """Many values, an `array("I")`."""
        values = self._values
        values.extend(us)
        if len(values) >= self._limit:
            self._fold()

    def __len__(self) -> int:
        return self._n + len(self._values)

    @property
    def total(self) -> int:
        """The sum of all values."""
        return self._sum + sum(self._values)

    @property
    def lowest(self) -> int:
        return min(self._min, min(self._values, default=TOP))

    @property
    def highest(self) -> int:
        return max(self._max, max(self._values, default=0))

    def merge(self, other: Histogram) -> None:
        """Add all values of another one, which stays as it is."""
        if other._counts is not None:
            self._n += other._n
            self._sum += other._sum
            self._min = min(self._min, other._min)
            self._max = max(self._max, other._max)
            self._cover(other._first, other._first + len(other._counts))
            counts, offset = self._counts, other._first - self._first
            assert counts is not None
            for place, count in enumerate(other._counts, offset):
                if count:
                    counts[place] += count
            self._limit = _CHUNK
        self.extend(other._values)

    def buckets(self) -> list[tuple[int, int]]:
        """Each bucket that has values, and how many, in order."""
        found = Counter(_buckets_of(self._values))
        if self._counts is not None:
            for bucket, count in enumerate(self._counts, self._first):
                if count:
                    found[bucket] += count
        return sorted(found.items())

    def percentiles(self, permilles: Sequence[int]) -> list[int]:
        """The values that so many thousandths are not above, by nearest rank: the lowest value that
        at least that share of all values does not exceed. `permilles` ascend.

        Raises ValueError if there are no values.
        """
        n = len(self)
        if not n:
            raise ValueError("a histogram without values has no percentiles")
        lowest, highest = self.lowest, self.highest
        found: list[int] = []
        seen, buckets = 0, iter(self.buckets())
        bucket = 0
        for permille in permilles:
            rank = max(1, -(-n * permille // 1000))
            while seen < rank:
                bucket, count = next(buckets)
                seen += count
            found.append(max(lowest, min(highest, top_of(bucket))))
        return found

    def above(self, us: int) -> int:
        """How many values lie in buckets above that of `us`."""
        mine = bucket_of(us)
        return sum(count for bucket, count in self.buckets() if bucket > mine)

    def latency(self) -> Latency | None:
        """The figures of a report, or None without values."""
        n = len(self)
        if not n:
            return None
        p50, p75, p90, p95, p99, p999 = (
            us / 1000 for us in self.percentiles((500, 750, 900, 950, 990, 999))
        )
        return Latency(
            count=n,
            mean=self.total / n / 1000,
            min=self.lowest / 1000,
            p50=p50,
            p75=p75,
            p90=p90,
            p95=p95,
            p99=p99,
            p999=p999,
            max=self.highest / 1000,
            histogram=self.encode(),
        )

    def encode(self) -> str:
        """HdrHistogram V2, compressed, base64."""
        whole: Any = HdrHistogram(1, TOP, DIGITS)
        for bucket, count in self.buckets():
            whole.counts[bucket] = count
        whole.total_count = len(self)
        if whole.total_count:
            whole.min_value, whole.max_value = self.lowest, self.highest
        encoded = whole.encode()
        return encoded.decode() if isinstance(encoded, bytes) else str(encoded)

    def state(self) -> State:
        """All of it, the same for the same values however they came."""
        if len(self) >= FOLD:
            self._fold()
        if self._counts is None:
            return 0, 0, TOP, 0, array("I", sorted(self._values)).tobytes(), 0, b""
        counts, first = self._counts, self._first
        start = next(place for place, count in enumerate(counts) if count)
        end = len(counts) - next(back for back, count in enumerate(reversed(counts)) if count)
        kept = counts[start:end].tobytes()
        return self._n, self._sum, self._min, self._max, b"", first + start, kept

    @classmethod
    def of(cls, state: State) -> Histogram:
        """The histogram that has this state."""
        self = cls()
        self._n, self._sum, self._min, self._max, values, self._first, counts = state
        self._values.frombytes(values)
        if counts:
            self._counts = array("Q")
            self._counts.frombytes(counts)
            self._limit = _CHUNK
        return self

    def _cover(self, start: int, end: int) -> None:
        """Have counts for the buckets from `start` to before `end`."""
        if self._counts is None:
            self._counts, self._first = array("Q", bytes(8 * (end - start))), start
            return
        if start < self._first:
            self._counts = array("Q", bytes(8 * (self._first - start))) + self._counts
            self._first = start
        missing = end - self._first - len(self._counts)
        if missing > 0:
            self._counts.frombytes(bytes(8 * missing))

    def _fold(self) -> None:
        values = self._values
        if not values:
            return
        self._n += len(values)
        self._sum += sum(values)
        self._min = min(self._min, min(values))
        self._max = max(self._max, max(values))
        found = Counter(_buckets_of(values))
        # In steps, so that a range that grows slowly is not copied each time.
        self._cover(min(found) & ~255, (max(found) | 255) + 1)
        counts, first = self._counts, self._first
        assert counts is not None
        for bucket, count in found.items():
            counts[bucket - first] += count
        self._values = array("I")
        self._limit = _CHUNK


def _buckets_of(values: Iterable[int]) -> list[int]:
    """`bucket_of` for many, without a call for each. (The condition is always true.)"""
    return [
        (shift << _BITS) + (us >> shift)
        for us in values
        if (shift := (us | _LOW).bit_length() - _BITS - 1) >= 0
    ]
