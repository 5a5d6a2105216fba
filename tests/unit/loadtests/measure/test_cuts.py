"""Cuts add up to all, whatever the number of names."""

from __future__ import annotations

import pytest

from loadtests.measure.aggregate import Aggregate
from loadtests.measure.cuts import Window, cuts
from loadtests.measure.record import Record
from loadtests.measure.summary import Cut
from tests.unit.loadtests.measure.records import failed, streamed

S = 1_000_000
WINDOWS = {
    "warm": Window(0, 10 * S),
    "steady": Window(10 * S, 20 * S),
    "spike": Window(20 * S, 30 * S),
}


def cuts_of(records: list[Record]) -> list[Cut]:
    aggregate = Aggregate({}, {})
    for record in records:
        aggregate.add(record)
    return cuts(aggregate.cells, WINDOWS)


def names(cut: Cut) -> dict[str, object]:
    dimensions = ("model", "account", "priority", "traffic", "phase")
    return {name: value for name in dimensions if (value := getattr(cut, name)) is not None}


def test_all_comes_first_and_warm_up_is_left_out() -> None:
    found = cuts_of([streamed(10), streamed(1, phase="warm", counted=False)])
    assert names(found[0]) == {}
    assert found[0].requests == 1
    assert not [cut for cut in found if cut.phase == "warm"]


def test_a_cut_for_each_value_and_for_pairs_that_vary() -> None:
    found = cuts_of(
        [
            streamed(10, model="a", account="x"),
            streamed(11, model="a", account="y"),
            streamed(12, model="b", account="x", priority=3),
        ]
    )
    assert [names(cut) for cut in found] == [
        {},
        {"model": "a"},
        {"model": "b"},
        {"account": "x"},
        {"account": "y"},
        {"priority": 3},  # the others have none
        {"traffic": "chat"},
        {"phase": "steady"},
        {"model": "a", "account": "x"},
        {"model": "a", "account": "y"},
        {"model": "b", "account": "x"},
    ]
    # There is one phase and one kind of traffic: pairs with them would say nothing new.


def test_of_thousands_of_models_the_rare_ones_are_together() -> None:
    records = [streamed(10, model=f"id-{n:04}") for n in range(3000)]
    records += [streamed(11, model=f"id-{n:04}") for n in range(200)]
    found = cuts_of(records)
    by_model = [cut for cut in found if names(cut).keys() == {"model"}]
    assert len(by_model) == 201
    assert sum(cut.requests for cut in by_model) == found[0].requests == 3200
    assert sum(cut.completion_tokens for cut in by_model) == found[0].completion_tokens
    rest = next(cut for cut in by_model if cut.model == "(other)")
    assert rest.requests == 2800
    assert {cut.requests for cut in by_model if cut is not rest} == {2}


def test_pairs_are_fewer() -> None:
    records = [
        streamed(10, model=f"m{n}", account=f"a{m}", phase=phase)
        for n in range(30)
        for m in range(30)
        for phase in ("steady", "spike")
    ]
    found = cuts_of(records)
    pairs = [cut for cut in found if names(cut).keys() == {"model", "account"}]
    assert len(pairs) == 21 * 21
    assert sum(cut.requests for cut in pairs) == 1800
    by_phase = [cut.phase for cut in found if names(cut).keys() == {"account", "phase"}]
    assert by_phase == ["steady"] * 21 + ["spike"] * 21


def test_rates_divide_by_the_time_that_the_phases_and_their_answers_took() -> None:
    found = cuts_of(
        [
            streamed(10, (1.0,), completion_tokens=30),
            streamed(19, (1.0, 6.0), completion_tokens=30),  # ends 5 s after its phase
            failed(15, 504, "timeout", end_s=600.0),  # one that hangs does not stretch it
        ]
    )
    assert found[0].seconds == pytest.approx(15)
    assert found[0].tokens_per_s == pytest.approx(4)
    assert found[0].requests_per_s == pytest.approx(2 / 15)
    assert found[0].goodput_per_s == pytest.approx(2 / 15)


def test_overlapping_phases_count_their_time_once() -> None:
    """The answers of `steady` reach into `spike`."""
    found = cuts_of([streamed(10, (14.0,)), streamed(20, (1.0,), phase="spike")])
    assert found[0].seconds == pytest.approx(20)
    steady = next(cut for cut in found if names(cut) == {"phase": "steady"})
    assert steady.seconds == pytest.approx(14)


def test_without_requests() -> None:
    (everything,) = cuts_of([])
    assert (everything.requests, everything.seconds, everything.ttft) == (0, 0.0, None)
