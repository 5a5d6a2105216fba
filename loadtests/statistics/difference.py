"""Two figures beside each other: their difference, its interval, and whether it can be chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.statistics.blocks import Mean, Sample, spread
from loadtests.statistics.student import beyond, two_sided

# Chances are told as one of these, the next higher: each needs an interval.
CHANCES = [10 ** (number / 10 - 9) for number in range(90)]


@dataclass(frozen=True)
class Difference:
    """`interval` gives its ends for a chance of error; `p` is the chance of one as far from 0 if
    there is none."""

    value: float
    interval: Callable[[float], tuple[float, float]]
    p: float


def of_means(a: Mean, b: Mean, paired: bool) -> Difference:
    """b - a. Paired: block for block the same requests were sent, so what both blocks share (a
    burst, long prompts) is no uncertainty of the difference."""
    value = b.value - a.value
    if paired:
        dof = float(min(a.used, b.used) - 1)
        deviations = [y - x for x, y in zip(a.deviations, b.deviations, strict=True)]
        error = spread(deviations, min(a.used, b.used))
    else:
        error = math.hypot(a.error, b.error)
        dof = welch([(a.error, a.dof), (b.error, b.dof)])
    return _student(value, error, dof)


def of_runs(a: Sequence[float], b: Sequence[float]) -> Difference:
    """mean(b) - mean(a) of independent runs, by B. L. Welch's test (1947)."""
    errors = [
        (math.sqrt(statistics.variance(side) / len(side)), len(side) - 1.0) for side in (a, b)
    ]
    value = statistics.fmean(b) - statistics.fmean(a)
    return _student(value, math.hypot(errors[0][0], errors[1][0]), welch(errors))


def of_quantiles(a: Sample, b: Sample, share: float, paired: bool) -> Difference:
    """log(quantile of b / quantile of a).

    Each quantile has R. S. Woodruff's interval (JASA 1952): the ends of the interval of the share
    below it, read from the values. The two are put together by G. Zou's method of variance
    estimates recovery (2008), which keeps them lopsided, as those of a p99 are.
    """
    one, other = a.quantile(share), b.quantile(share)
    if not (math.isfinite(one) and math.isfinite(other)):
        return Difference(math.nan, lambda alpha: (-math.inf, math.inf), 1.0)
    value = math.log(other / one)
    below_a, below_b = a.above(one), b.above(other)
    together = _correlation(below_a.deviations, below_b.deviations) if paired else 0.0

    def interval(alpha: float) -> tuple[float, float]:
        down_a, up_a = _around(a, share, below_a, one, alpha)
        down_b, up_b = _around(b, share, below_b, other, alpha)
        return (value - _joined(down_b, up_a, together), value + _joined(up_b, down_a, together))

    return Difference(value, interval, _chance(value, interval))


def holm(chances: Sequence[float]) -> list[float]:
    """The chances, adjusted so that below 0.05 there is any mistake among them with a chance of
    0.05 at most, however they depend on each other (S. Holm, 1979)."""
    order = sorted(range(len(chances)), key=lambda place: chances[place])
    adjusted = [1.0] * len(chances)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, chances[place] * (len(chances) - rank)))
        adjusted[place] = highest
    return adjusted


def welch(errors: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a difference, from each side's standard error and its own."""
    below = sum(error**4 / dof for error, dof in errors if dof > 0)
    return sum(error**2 for error, _ in errors) ** 2 / below if below else max(d for _, d in errors)


def _student(value: float, error: float, dof: float) -> Difference:
    def interval(alpha: float) -> tuple[float, float]:
        wide = two_sided(alpha, dof) * error if error else 0.0
        return value - wide, value + wide

    if not error:
        return Difference(value, interval, 1.0 if value == 0 else 0.0)
    if not math.isfinite(error) or dof <= 0:
        return Difference(value, lambda alpha: (-math.inf, math.inf), 1.0)
    return Difference(value, interval, beyond(value / error, dof))


def around(sample: Sample, share: float, alpha: float) -> tuple[float, float]:
    """How far below and above its quantile the interval reaches, in logarithms."""
    middle = sample.quantile(share)
    return _around(sample, share, sample.above(middle), middle, alpha)


def _around(
    sample: Sample, share: float, mean: Mean, middle: float, alpha: float
) -> tuple[float, float]:
    # No surer than independent values would be: with few of them none may lie above a p99.
    error = max(mean.error, math.sqrt(share * (1 - share) / sample.total))
    wide = two_sided(alpha, mean.dof) * error
    low, high = sample.quantile(share - wide), sample.quantile(share + wide)
    return (
        math.log(middle / low) if low > 0 else math.inf,
        math.log(high / middle) if math.isfinite(high) else math.inf,
    )


def _joined(one: float, other: float, together: float) -> float:
    if math.isinf(one) or math.isinf(other):
        return math.inf
    return math.sqrt(max(0.0, one * one + other * other - 2 * together * one * other))


def _chance(value: float, interval: Callable[[float], tuple[float, float]]) -> float:
    """The least chance of error, of those in `CHANCES`, whose interval leaves 0 out."""
    if value == 0:
        return 1.0
    low, high = 0, len(CHANCES)
    while low < high:
        middle = (low + high) // 2
        left, right = interval(CHANCES[middle])
        low, high = (low, middle) if left > 0 or right < 0 else (middle + 1, high)
    return CHANCES[low] if low < len(CHANCES) else 1.0


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    along = sum(x * y for x, y in zip(a, b, strict=True))
    size = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return along / size if size else 0.0
