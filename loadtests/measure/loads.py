"""The parts of a run that had one load each: what latency against load is drawn from."""

from __future__ import annotations

from collections.abc import Iterator

from loadtests.measure.summary import Load
from loadtests.measure.timeline import Timeline
from loadtests.scenarios.arrivals import Closed, Phase, Ramp, Step, Trace
from loadtests.scenarios.model import Scenario

RAMP_PARTS = 16
SHORTEST_S = 5.0  # a part of a ramp: shorter ones have too few requests for a percentile


def loads(scenario: Scenario, timeline: Timeline) -> list[Load]:
    """Steps, parts of ramps, and phases of one rate, where they are counted.

    The timeline's steps are taken whole: one that two parts share belongs to the part that it
    begins in.
    """
    found = []
    start = 0.0
    for phase in scenario.phases:
        for begin, end in _parts(phase) if phase.counted else ():
            load = _load(phase.name, start + begin, start + end, timeline)
            if load is not None:
                found.append(load)
        start += phase.seconds
    return found


def _parts(phase: Phase) -> Iterator[tuple[float, float]]:
    match phase.arrivals:
        case Closed() | Trace():
            return
        case Step(rates=rates):
            count = len(rates)
        case Ramp():
            count = max(1, min(RAMP_PARTS, int(phase.seconds / SHORTEST_S)))
        case _:
            count = 1
    for number in range(count):
        yield phase.seconds * number / count, phase.seconds * (number + 1) / count


def _load(phase: str, start_s: float, end_s: float, timeline: Timeline) -> Load | None:
    step, seconds = timeline.window(start_s, end_s)
    if not seconds or not step.due:
        return None
    return Load(
        phase=phase,
        start_s=start_s,
        end_s=end_s,
        due_rate=step.due / seconds,
        ended_rate=step.ended / seconds,
        ttft=step.ttft.latency() if step.ttft else None,
        tpot=None,
        e2e=step.e2e.latency() if step.e2e else None,
    )
