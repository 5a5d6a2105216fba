"""Several runs a side: a run is the unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from loadtests.compare.found import CUTS, DIMENSIONS, NONE, Found
from loadtests.compare.measures import MEASURES, Measure
from loadtests.compare.reading import Run
from loadtests.measure.summary import Cut
from loadtests.statistics.difference import of_runs

RUNS_SAID = (
    "{a} runs against {b}: a run is the unit, by Welch's t-test, since what changes from one start "
    "of a service to the next changes all of a run."
)


def by_runs(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Found]:
    sides = [[_named_cuts(run) for run in side] for side in (a, b)]
    shared = [
        name
        for name in sides[0][0]
        if all(name in cuts for side in sides for cuts in side)
    ][: CUTS + 1]  # fmt: skip
    for name in shared:
        for measure in MEASURES:
            if name != "all" and measure.kind == "rate":
                continue
            one, other = (
                [measure.of_cut(cuts[name]) for cuts in side] for side in sides
            )  # fmt: skip
            yield _of_values(name, measure, one, other)


def _of_values(
    name: str, measure: Measure, a: Sequence[float | None], b: Sequence[float | None]
) -> Found:
    left = [value for value in a if value is not None]
    right = [value for value in b if value is not None]
    if len(left) < len(a) or len(right) < len(b):
        return Found(name, measure, None, None, None, NONE)
    if measure.kind == "share":
        difference = of_runs(left, right)
        return Found(name, measure, _mean(left), _mean(right), difference)
    if min(*left, *right) <= 0:
        return Found(name, measure, _mean(left), _mean(right), None, "values of 0")
    logs = [[math.log(value) for value in side] for side in (left, right)]
    middle = [math.exp(_mean(side)) for side in logs]
    return Found(name, measure, middle[0], middle[1], of_runs(logs[0], logs[1]), logs=True)


def _named_cuts(run: Run) -> dict[str, Cut]:
    cuts = {"all": run.summary.cuts[0]}
    for cut in run.summary.cuts[1:]:
        named = [(d, getattr(cut, d)) for d in DIMENSIONS if getattr(cut, d) is not None]
        if len(named) == 1:
            cuts[f"{named[0][0]} {named[0][1]}"] = cut
    return cuts


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
