"""What stands in a summary beside its figures."""

from __future__ import annotations

import socket

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.cuts import Window
from loadtests.measure.summarise import machine, summarise, windows_of
from loadtests.measure.summary import Mark
from loadtests.measure.timeline import step_for
from loadtests.scenarios.arrivals import Constant, Phase
from tests.unit.loadtests.measure.records import streamed
from tests.unit.loadtests.measure.test_aggregate import scenario


def test_a_summary_says_what_was_run() -> None:
    of = scenario(seed=7, about="for a test")
    aggregate = Aggregate.of(of)
    aggregate.add(streamed(10))
    marks = [Mark(at_s=at, name="kill", status=0, output="") for at in (9.0, 3.0)]
    summary = summarise(
        of, aggregate, started_at=1_700_000_000.25, seconds=31.5, url="http://x", marks=marks
    )
    assert (summary.scenario, summary.seed, summary.about) == ("s", 7, "for a test")
    assert summary.url == "http://x"
    assert summary.started_at == "2023-11-14T22:13:20.250+00:00"
    assert (summary.seconds, summary.processes) == (31.5, 1)
    assert [mark.at_s for mark in summary.marks] == [3, 9]
    assert [phase.name for phase in summary.phases] == ["warm", "steady", "spike"]
    assert summary.phases[1].start_s == 10


def test_phases_follow_each_other() -> None:
    s = 1_000_000
    assert windows_of(scenario()) == {
        "warm": Window(0, 10 * s),
        "steady": Window(10 * s, 20 * s),
        "spike": Window(20 * s, 30 * s),
    }


def test_the_machine_is_told_without_its_name() -> None:
    found = machine()
    assert {"python", "system", "machine", "cores"} <= found.keys()
    assert socket.gethostname() not in found.values()


def test_a_day_has_longer_steps() -> None:
    assert [step_for(seconds) for seconds in (60, 3600, 3601, 86_400)] == [1, 1, 2, 32]
    day = Phase(name="day", seconds=86_400, arrivals=Constant(kind="constant", rate=1))
    aggregate = Aggregate.of(scenario().model_copy(update={"phases": (day,)}))
    aggregate.add(streamed(86_300, phase="day"))
    steps = aggregate.timeline.seconds()
    assert len(steps) < 3600
    assert (steps[-1].at_s, steps[-1].seconds, steps[-1].due) == (86_272, 32, 1)
