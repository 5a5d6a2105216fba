"""A run in which the client was the bottleneck says so, with what to do."""

from __future__ import annotations

import pytest

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.client import ClientFigures
from loadtests.measure.record import Record
from loadtests.measure.summarise import summarise
from loadtests.measure.summary import Summary
from loadtests.measure.validity import status
from loadtests.scenarios.arrivals import Closed
from loadtests.scenarios.model import Goal
from tests.unit.loadtests.measure.records import failed, streamed
from tests.unit.loadtests.measure.test_aggregate import scenario

FINE = {"name": "0", "wall_s": 30.0, "cpu_s": 3.0}


def run(records: list[Record], *clients: dict[str, object], **fields: object) -> Summary:
    of = scenario(**fields)
    aggregate = Aggregate.of(of)
    for record in records:
        aggregate.add(record)
    aggregate.clients += [ClientFigures(**{**FINE, **client}) for client in clients]  # type: ignore[arg-type]
    return summarise(of, aggregate, started_at=1.7e9, seconds=30)


def steady(count: int, late_s: float = 0.001) -> list[Record]:
    return [streamed(10 + n * 0.01, late_s=late_s) for n in range(count)]


def test_a_run_that_kept_up() -> None:
    summary = run(steady(500), {"due": {"steady": 500}})
    assert summary.invalid == []
    assert status(summary) == 0


def test_goals_missed() -> None:
    summary = run(steady(10), goals=(Goal(measure="ttft_p50_ms", at_most=1),))
    assert status(summary) == 1


def test_late_sending() -> None:
    summary = run(steady(95) + steady(5, late_s=0.05))
    (reason,) = summary.invalid
    assert "p99 of its lag is 50.0 ms, above 20 ms" in reason
    assert "5.0% of the requests" in reason
    assert "`client: {processes: 2}`" in reason
    assert status(summary) == 3


def test_invalid_weighs_more_than_a_missed_goal() -> None:
    goal = Goal(measure="ttft_p50_ms", at_most=1)
    assert status(run(steady(95, late_s=0.05), goals=(goal,))) == 3


def test_requests_that_were_sent_after_their_phase() -> None:
    """The lag is short but for a few, which stand at the phase's end."""
    behind = [streamed(19.99, late_s=0.5) for _ in range(20)]
    summary = run(steady(980) + behind)
    (reason,) = [one for one in summary.invalid if "phase steady" in one]
    assert "1000 requests were due and 980 were sent in time, 2.0% less" in reason
    (phase,) = [phase for phase in summary.phases if phase.name == "steady"]
    assert (phase.due, phase.sent) == (1000, 980)
    assert (phase.configured_rate, phase.achieved_rate) == (100, 98)


def test_requests_that_were_never_begun() -> None:
    unsent = [failed(15, 0, "never sent", begun_s=0.0, sent_s=0.0) for _ in range(20)]
    assert "980 were sent in time" in run(steady(980) + unsent).invalid[0]


def test_one_request_of_few_is_no_reason() -> None:
    assert run([*steady(10), streamed(19.99, late_s=0.019)]).invalid == []


@pytest.mark.parametrize(
    ("client", "words"),
    [
        ({"busiest": 0.99}, "used 99% of its core"),
        ({"late_p99_ms": 42.0, "late_max_ms": 90.0}, "p99 is 42.0 ms and the worst 90 ms"),
        ({"started_late_s": 1.5}, "began 1.50 s after the agreed start"),
        ({"clock_step_s": -2.0}, "set by -2.00 s"),
        ({"interrupted": True}, "interrupted"),
        ({"due": {"steady": 52}}, "2 requests became due and have no record"),
    ],
)
def test_what_a_process_says_of_itself(client: dict[str, object], words: str) -> None:
    summary = run(steady(50), {}, {"name": "1", **client})
    (reason,) = [one for one in summary.invalid if "phase steady" not in one]
    assert words in reason
    assert status(summary) == 3


def test_a_run_without_counted_requests() -> None:
    assert "no request was counted" in run([]).invalid[0]


def test_further_problems_come_first() -> None:
    of = scenario()
    summary = summarise(
        of, Aggregate.of(of), started_at=0, seconds=1, problems=["shard 2 is missing"]
    )
    assert summary.invalid[0] == "shard 2 is missing"


def test_a_closed_loop_has_no_configured_rate() -> None:
    of = scenario()
    phases = (of.phases[0].model_copy(update={"arrivals": Closed(kind="closed", concurrency=2)}),)
    of = of.model_copy(update={"phases": phases})
    aggregate = Aggregate.of(of)
    aggregate.add(streamed(1, phase=of.phases[0].name, counted=False))
    (phase,) = summarise(of, aggregate, started_at=0, seconds=10).phases
    assert phase.closed_loop
    assert phase.configured_rate is None
    assert phase.achieved_rate == pytest.approx(0.1)
