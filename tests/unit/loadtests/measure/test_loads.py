from __future__ import annotations

import pytest

from loadtests.measure.loads import loads
from loadtests.measure.record import Outcome, Record
from loadtests.measure.timeline import Timeline
from loadtests.scenarios.arrivals import Closed, Phase, Poisson, Ramp, Step
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.traffic import Traffic


def record(due_s: float, ttft_s: float) -> Record:
    made = Record(0, "p", "t", "m", "", None, 0, 0, True, True, due_s)
    made.begun_s = made.sent_s = due_s
    made.first_s, made.end_s = due_s + ttft_s, due_s + ttft_s
    made.outcome = Outcome.OK
    return made


def test_each_step_and_part_of_a_ramp_has_its_own_latencies() -> None:
    phases = (
        Phase(name="warm", seconds=10, arrivals=Poisson(kind="poisson", rate=1), counted=False),
        Phase(name="steps", seconds=20, arrivals=Step(kind="step", rates=(10, 20))),
        Phase(name="ramp", seconds=20, arrivals=Ramp(kind="ramp", start=1, end=10)),
        Phase(name="flat", seconds=10, arrivals=Poisson(kind="poisson", rate=5)),
        Phase(name="loop", seconds=10, arrivals=Closed(kind="closed", concurrency=3)),
    )
    scenario = Scenario(name="s", phases=phases, traffic=(Traffic(name="t"),))
    timeline = Timeline()
    for number in range(100):
        timeline.add(record(10 + number / 10, 0.1))  # the first step: 10/s
    for number in range(200):
        timeline.add(record(20 + number / 20, 0.3))  # the second one: 20/s
    for number in range(50):
        timeline.add(record(50 + number / 5, 0.05))
    for number in range(30):
        timeline.add(record(60 + number / 3, 9.0))  # the closed loop has no load
    found = loads(scenario, timeline)
    assert [(load.phase, load.start_s, load.end_s) for load in found] == [
        ("steps", 10, 20),
        ("steps", 20, 30),
        ("flat", 50, 60),
    ], "no request was due in the ramp"
    assert [load.due_rate for load in found] == [10, 20, 5]
    assert [load.ttft.p50 if load.ttft else 0 for load in found] == pytest.approx(
        [100, 300, 50], rel=2e-3
    )
    for number in range(20):
        timeline.add(record(30 + number, 0.2))
    ramp = [load for load in loads(scenario, timeline) if load.phase == "ramp"]
    assert [load.start_s for load in ramp] == [30, 35, 40, 45]
