"""Where latency begins to grow faster than the load does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from loadtests.measure.summary import Latency, Load

Measure = Literal["ttft", "e2e"]
LOADS = 3  # fewer say nothing about a knee


def varied(loads: Sequence[Load]) -> bool:
    """Whether they say something about latency against load: three, one twice as high as another.

    The phases of a run at one rate do not."""
    rates = [load.due_rate for load in loads]
    return len(rates) >= LOADS and max(rates) >= 2 * min(rates)


def measured(loads: Sequence[Load]) -> Measure:
    """Return which latency a run is judged by: the first token, or the whole of whole answers."""
    return "ttft" if any(load.ttft for load in loads) else "e2e"


def latency_of(load: Load, measure: Measure) -> Latency | None:
    """Return a load's latency, None if nothing was measured."""
    latency: Latency | None = getattr(load, measure)
    return latency if latency and latency.count else None


def knee_of(loads: Sequence[Load], measure: Measure) -> float | None:
    """Return the knee of p99, in requests/s that were due; None as `knee` does."""
    return knee(
        [(load.due_rate, latency.p99) for load in loads if (latency := latency_of(load, measure))]
    )


def knee(points: Sequence[tuple[float, float]]) -> float | None:
    """The load at which load over latency is greatest: beyond it latency grows faster than load.

    That ratio is the power of L. Kleinrock, "Power and deterministic rules of thumb for
    probabilistic problems in computer communications", ICC 1979. None if it is greatest at the
    highest load: the knee was not reached then, or if there are fewer than three loads.
    """
    known = [(load, latency) for load, latency in sorted(points) if latency > 0 and load > 0]
    if len(known) < LOADS:
        return None
    best = max(known, key=lambda point: point[0] / point[1])
    return None if best == known[-1] else best[0]
