"""Holds what was measured against what the known server wrote down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtests.known.log import Served
from loadtests.measure.record import Outcome
from loadtests.measure.summary import Cut, Latency

SHARE = 0.02
FLOOR_MS = 1.0
PERCENTILES = {"p50": 500, "p75": 750, "p90": 900, "p95": 950, "p99": 990, "p999": 999}
MEASURES = ("ttft", "tpot", "gap", "e2e")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is needed of a record: to find it in the server's log, and when it was due."""

    request_id: str
    due_s: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of a report beside the true one, in milliseconds."""

    measure: str
    figure: str
    measured: float
    true: float

    @property
    def off(self) -> float:
        """By how much it is wrong."""
        return self.measured - self.true

    def holds(self, late_ms: float = 0.0) -> bool:
        """Whether it is true to 2 % or 1 ms, whichever is more, and what the client admits."""
        return abs(self.off) <= max(FLOOR_MS, SHARE * self.true) + late_ms


def checks(cut: Cut, seen: Sequence[Seen], served: Sequence[Served], start: float) -> list[Check]:
    """Compare every percentile that a report has. `start`: the run's, on CLOCK_MONOTONIC.

    Only for runs whose requests all were streams and ended well.
    """
    found = list(_checks(cut, truth(seen, served, start)))
    assert found, "there was nothing to check"
    return found


def _checks(cut: Cut, true: dict[str, list[float]]) -> Iterator[Check]:
    for measure in MEASURES:
        latency: Latency | None = getattr(cut, measure)
        values = true[measure]
        if latency is None or latency.count != len(values):
            count = 0 if latency is None else latency.count
            raise AssertionError(f"{count} values of {measure} were measured, not {len(values)}")
        yield Check(measure, "mean", latency.mean, sum(values) / len(values))
        for figure, permille in PERCENTILES.items():
            yield Check(measure, figure, getattr(latency, figure), ranked(values, permille))


def truth(seen: Sequence[Seen], served: Sequence[Served], start: float) -> dict[str, list[float]]:
    """Return all values of each measure in milliseconds, in ascending order, by the server's log:
    from when a request was due until its events were handed to the kernel."""
    found: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for each in seen:
        if each.outcome is not Outcome.OK:
            raise AssertionError(f"a request ended as {each.outcome}")
        said = served[int(each.request_id)]
        due, events = start + each.due_s, said.events
        found["ttft"].append(events[0] - due)
        found["e2e"].append(said.ended - due)
        found["gap"] += [after - before for before, after in pairwise(events)]
        if len(events) > 1:
            found["tpot"].append((events[-1] - events[0]) / (len(events) - 1))
    return {measure: sorted(value * 1000 for value in values) for measure, values in found.items()}


def arrivals(seen: Sequence[Seen], served: Sequence[Served], start: float) -> list[float]:
    """Return how much later than due each request arrived, in milliseconds, in ascending order."""
    return sorted(
        (served[int(each.request_id)].arrived - start - each.due_s) * 1000 for each in seen
    )


def ranked(values: Sequence[float], permille: int) -> float:
    """Return the nearest-rank percentile of ascending values."""
    return values[max(1, -(-len(values) * permille // 1000)) - 1]
