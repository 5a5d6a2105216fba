"""Each measure of a goal, and what it may be restricted to."""

from __future__ import annotations

import pytest

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.cuts import Window
from loadtests.measure.goals import describe, verdicts
from loadtests.measure.record import Outcome
from loadtests.measure.summary import Count, Scrape, Verdict
from loadtests.scenarios.goals import MEASURES
from loadtests.scenarios.model import Goal
from loadtests.scenarios.traffic import Slo
from tests.unit.loadtests.measure.records import failed, streamed

WINDOWS = {"steady": Window(0, 10_000_000), "spike": Window(10_000_000, 20_000_000)}
COUNTS = [Count(what="completion tokens", model=None, client=90, server=100, explained=7)]


def judge(goal: Goal, counts: list[Count] | None = None) -> Verdict:
    aggregate = Aggregate({"chat": Slo(ttft_ms=150)}, {})
    for record in (
        streamed(0.0, (0.1, 0.2, 0.3), model="a", account="x"),
        streamed(1.0, (0.2, 0.4, 0.6), model="b", account="x", checked=True),
        streamed(2.0, (0.1,), model="b", account="y", outcome=Outcome.CANCELLED),
        failed(3.0, 500, model="b", account="y"),
        failed(4.0, 429, model="b", account="y", error="HTTP 429"),
        streamed(11.0, (0.4, 0.5), phase="spike", checked=True, wrong=True, traffic="batch"),
        streamed(12.0, (9.0,), phase="warm", counted=False),
    ):
        aggregate.add(record)
    counts = COUNTS if counts is None else counts
    (verdict,) = verdicts([goal], aggregate.cells, WINDOWS, counts, MEMORY)
    return verdict


MEMORY = [
    Scrape(target="r", name="process_resident_memory_bytes", labels={}, samples=samples)
    for samples in (
        [(0.0, 80e6), (9.0, 100e6), (12.0, 130e6), (15.0, 99e6)],
        [(0.0, 10e6), (20.0, 10e6)],
        [(11.0, 1e6), (20.0, 900e6)],  # it came later
    )
]


@pytest.mark.parametrize(("phase", "value"), [(None, 50), ("steady", 20), ("spike", 30)])
def test_the_process_that_has_grown_most(phase: str | None, value: float) -> None:
    goal = Goal(measure="memory_growth_mb", at_most=30, phase=phase)
    (verdict,) = verdicts([goal], {}, WINDOWS, [], MEMORY)
    assert (verdict.value, verdict.met) == (value, value <= 30)


@pytest.mark.parametrize("measure", ["memory_growth_mb", "unreconciled"])
@pytest.mark.parametrize("optional", [False, True])
def test_what_was_not_measured_is_missed_but_where_it_is_optional(
    measure: str, optional: bool
) -> None:
    goal = Goal(measure=measure, at_most=1, optional=optional)
    (verdict,) = verdicts([goal], {}, WINDOWS, [])
    assert (verdict.value, verdict.met) == (None, optional)


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ("ttft_max_ms", 400),
        ("ttft_p50_ms", 100),
        ("ttft_mean_ms", 200),
        ("service_ttft_max_ms", 399),
        ("tpot_p99_ms", 200),
        ("gap_min_ms", 100),
        ("e2e_p90_ms", 600),
        ("service_e2e_p90_ms", 599),
        ("lag_p99_ms", 1),
        ("error_share", 1 / 6),
        ("rejected_share", 1 / 6),
        ("goodput_share", 1 / 5),  # of those that did not leave
        ("wrong_answers", 1),
        ("tokens_per_s", 9 / 20),
        ("requests_per_s", 4 / 20),
        ("goodput_per_s", 1 / 20),
        ("unreconciled", 3),
    ],
)
def test_measures(measure: str, value: float) -> None:
    assert measure in MEASURES
    verdict = judge(Goal(measure=measure, at_most=1e9))
    assert verdict.value == pytest.approx(value, rel=0.002)
    assert verdict.met
    assert not judge(Goal(measure=measure, at_most=value * 0.9)).met
    assert not judge(Goal(measure=measure, at_least=value * 1.1)).met
    assert judge(Goal(measure=measure, at_least=value * 0.9, at_most=value * 1.1)).met


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_that_a_scenario_may_name_has_a_value(measure: str) -> None:
    assert judge(Goal(measure=measure, at_least=0)).met


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ({"model": "a"}, 100),
        ({"account": "x"}, 200),
        ({"traffic": "batch"}, 400),
        ({"phase": "spike"}, 400),
        ({"model": "b", "account": "y"}, 100),
    ],
)
def test_restricted(where: dict[str, str], value: float) -> None:
    goal = Goal(measure="ttft_max_ms", at_most=1000, **where)  # type: ignore[arg-type]
    assert judge(goal).value == pytest.approx(value)


@pytest.mark.parametrize(
    "goal",
    [
        Goal(measure="ttft_p99_ms", at_most=100, model="absent"),
        Goal(measure="wrong_answers", at_most=0, model="a"),  # none had a reference
        Goal(measure="error_share", at_most=1, phase="absent"),
    ],
)
def test_what_was_not_measured_is_missed(goal: Goal) -> None:
    assert judge(goal) == Verdict(goal=describe(goal), value=None, met=False)


def test_without_the_servers_counts_nothing_is_reconciled() -> None:
    assert not judge(Goal(measure="unreconciled", at_most=0), counts=[]).met


def test_the_words_of_a_goal() -> None:
    goal = Goal(measure="ttft_p99_ms", at_most=500, traffic="chat", phase="steady")
    assert describe(goal) == "ttft_p99_ms at most 500 (traffic chat, phase steady)"
    both = Goal(measure="requests_per_s", at_least=9.5, at_most=10.5)
    assert describe(both) == "requests_per_s at least 9.5 and at most 10.5"


def test_a_measure_that_there_is_not() -> None:
    assert "ttft_p42_ms" not in MEASURES
    with pytest.raises(ValueError, match="no measure 'ttft_p42_ms'"):
        judge(Goal(measure="ttft_p42_ms", at_most=1))
