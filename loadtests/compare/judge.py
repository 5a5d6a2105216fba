"""The comparison itself: every measure of every cut, its difference and a word."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtests.compare.by_blocks import by_blocks
from loadtests.compare.by_runs import RUNS_SAID, by_runs
from loadtests.compare.found import NONE, Found
from loadtests.compare.model import Comparison, Line
from loadtests.compare.reading import Run
from loadtests.compare.sameness import Incomparable, differing, reasons
from loadtests.statistics.difference import holm

# Differences of latencies and rates below this are not told: figures of a run are as true as that.
SMALLEST = 0.02


def compare(
    a: Sequence[Run],
    b: Sequence[Run],
    *,
    confidence: float = 0.95,
    smallest: float = SMALLEST,
    force: bool = False,
) -> Comparison:
    """Compare runs of one scenario: one a side, or several.

    A word of "better" or "worse" anywhere is a mistake with a chance of 1 - confidence at most: the
    lines of the whole run share one half of it, those of its cuts the other, each by Holm's method.
    Raises Incomparable, unless forced.
    """
    against = reasons(a, b)
    if against and not force:
        raise Incomparable(against)
    several = len(a) > 1 and len(b) > 1
    if several:
        found = list(by_runs(a, b))
        how = RUNS_SAID.format(a=len(a), b=len(b))
    else:
        for run in (*a, *b):
            if not run.observations:
                raise Incomparable([
                    f"{run.name} has no records.jsonl, which comparing single runs needs; or give "
                    "two folders and more a side"
                ])  # fmt: skip
        paired = not against and len(a) == len(b) == 1
        found, how = by_blocks(a, b, paired)
    return Comparison(
        a=[run.name for run in a],
        b=[run.name for run in b],
        scenario=a[0].summary.scenario,
        confidence=confidence,
        smallest=smallest,
        how=how,
        forced=against,
        differing=differing(a, b),
        lines=_judged(found, 1 - confidence, smallest),
    )


# --- words ---


def _judged(found: Sequence[Found], alpha: float, smallest: float) -> list[Line]:
    whole = [each for each in found if each.cut == "all" and each.why != NONE]
    cuts = [each for each in found if each.cut != "all" and each.why != NONE]
    part = alpha / 2 if cuts else alpha
    lines = []
    for family in (whole, cuts):
        known = [each.difference.p for each in family if each.difference]
        adjusted = iter(holm(known))
        lines += [
            _line(each, next(adjusted) if each.difference else 1.0, alpha, part, smallest)
            for each in family
        ]
    return lines


def _line(found: Found, adjusted: float, alpha: float, part: float, smallest: float) -> Line:
    measure, difference = found.measure, found.difference
    line = Line(
        cut=found.cut, measure=measure.name, kind=measure.kind, a=found.a, b=found.b,
        difference=None, low=None, high=None, p=1.0, adjusted=1.0, word="too few", why=found.why,
    )  # fmt: skip
    if difference is None:
        return line
    low, high = difference.interval(alpha)
    ends = [_told(end, found) for end in (difference.value, low, high)]
    update: dict[str, object] = {
        "difference": ends[0], "low": ends[1], "high": ends[2], "p": difference.p,
        "adjusted": adjusted, "word": "noise",
    }  # fmt: skip
    if adjusted <= part:
        small = measure.kind != "share" and ends[0] is not None and abs(ends[0]) < smallest
        if small:
            update["why"] = f"sure, but below {smallest:.0%}"
        else:
            up = difference.value > 0
            update["word"] = "worse" if up is measure.low_is_good else "better"
    return line.model_copy(update=update)


def _told(value: float, found: Found) -> float | None:
    """A difference as it is told: a part of A's value, or of shares one minus the other."""
    if not math.isfinite(value):
        return None
    if found.logs:
        return math.expm1(min(value, 700.0))
    if found.measure.kind == "share":
        return value
    return value / found.a if found.a else None
