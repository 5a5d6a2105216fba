"""What requests that wait for a sleeping model are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from serving.catalogue.spec import EngineSpec
from serving.router.demand import Demand
from serving.router.waiting import PATIENCE_S, PATIENT_STARTS, SOON_S, UNKNOWN_START_S, Starts


class Fleet:
    """The replicas of one model, and who watches them."""

    def __init__(self) -> None:
        self.replicas = 0
        self.said: float | None = None
        self.lost: float | None = None
        self.was_seen = True
        self.watchers: list[Callable[[], None]] = []

    def ready(self, model: str) -> int:
        return self.replicas

    def start_s(self, model: str) -> float | None:
        return self.said

    def lost_at(self, model: str) -> float | None:
        return self.lost

    def seen(self, model: str) -> bool:
        return self.was_seen

    def subscribe(self, model: str, wake: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(wake)
        return lambda: self.watchers.remove(wake)

    def comes_up(self, replicas: int = 1) -> None:
        self.replicas = replicas
        self.lost = None
        for wake in tuple(self.watchers):
            wake()


class Clock:
    """`time.monotonic`, set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("waiting", "demand"):
        monkeypatch.setattr(f"serving.router.{module}.time.monotonic", clock)
    return clock


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def demand() -> Demand:
    demand = Demand(lambda model, wanted: None)
    spec = {"id": "sleeper", "weights": "w", "context": 100, "min_replicas": 0, "idle_s": 1}
    demand.update([EngineSpec.model_validate(spec)])
    return demand


@pytest.fixture
def starts(fleet: Any, demand: Demand) -> Starts:
    return Starts(fleet, demand)


def test_estimates_come_from_earlier_starts(starts: Starts, fleet: Fleet, clock: Clock) -> None:
    starts.expect("sleeper")
    clock.now = 104.0
    error = starts.unavailable("sleeper")
    assert error.retry_after_s == UNKNOWN_START_S - 4
    assert "is not known here yet" in error.message
    # What a replica said of itself counts until this router has seen a start.
    fleet.said = 20.0
    assert starts.unavailable("sleeper").retry_after_s == 16
    clock.now = 112.0
    fleet.comes_up()
    fleet.replicas = 0
    starts.expect("sleeper")
    clock.now = 115.0
    error = starts.unavailable("sleeper")
    assert error.retry_after_s == 12 - 3
    assert "took 12 s" in error.message
    clock.now = 200.0
    assert starts.unavailable("sleeper").retry_after_s == SOON_S


def test_a_start_that_nobody_waited_for_any_more_counts_too(
    starts: Starts, fleet: Fleet, clock: Clock
) -> None:
    starts.expect("sleeper")
    clock.now = 170.0
    fleet.comes_up()
    clock.now = 5000.0
    fleet.comes_up(2)  # another replica, much later
    assert "took 70 s" in starts.unavailable("sleeper").message
    assert starts.news("sleeper") == b": model 'sleeper' is starting; its last start took 70 s\n\n"
    assert not fleet.watchers


async def test_a_start_that_was_given_up_does_not_count(
    starts: Starts, demand: Demand, clock: Clock
) -> None:
    with demand.using("sleeper"):
        starts.expect("sleeper")
    demand.close()  # nobody asked any more, and it went back to sleep
    clock.now = 5000.0
    with demand.using("sleeper"):
        starts.expect("sleeper")
        clock.now = 5003.0
        assert "has been starting for 3 s" in starts.unavailable("sleeper").message


def test_a_removed_model_has_not_started(starts: Starts, fleet: Fleet, clock: Clock) -> None:
    starts.expect("sleeper")
    clock.now = 110.0
    fleet.comes_up(0)
    assert "is not known here yet" in starts.unavailable("sleeper").message


def test_a_lost_replica_is_timed_from_its_loss(starts: Starts, fleet: Fleet, clock: Clock) -> None:
    fleet.lost = clock.now
    clock.now = 107.0
    starts.expect("other")
    assert "lost its last replica 7 s ago" in starts.unavailable("other").message
    assert b"lost its last replica and starts again" in starts.news("other")
    clock.now = 112.0
    fleet.comes_up()
    assert "took 12 s" in starts.unavailable("other").message


def test_a_model_that_was_never_seen_tells_nothing_of_its_start(
    starts: Starts, fleet: Fleet, clock: Clock
) -> None:
    """It may have run all along, and this router is new."""
    fleet.was_seen, fleet.lost = False, clock.now
    clock.now = 107.0
    starts.expect("other")
    assert "no replica yet in the 7 s" in starts.unavailable("other").message
    assert starts.state("other") == "has no replica yet"
    assert b"'other' is starting" in starts.news("other")
    fleet.comes_up()
    assert "is not known here yet" in starts.unavailable("other").message


async def test_a_model_that_sleeps_was_asleep_unless_it_was_lost_in_use(
    starts: Starts, fleet: Fleet, demand: Demand, clock: Clock
) -> None:
    fleet.lost = clock.now
    clock.now += 5
    with demand.using("sleeper"):
        assert "was asleep" in starts.unavailable("sleeper").message
        clock.now += 5
        fleet.lost = clock.now
        assert "lost its last" in starts.unavailable("sleeper").message


def test_a_model_is_expected_back_for_a_few_times_its_start(
    starts: Starts, fleet: Fleet, clock: Clock
) -> None:
    assert not starts.expected("other")  # it has a replica
    fleet.lost = clock.now
    clock.now += PATIENCE_S - 1
    assert starts.expected("other")
    clock.now += 2
    assert not starts.expected("other")
    fleet.said = PATIENCE_S  # as long as it takes to start
    assert starts.expected("other")
    clock.now += PATIENT_STARTS * PATIENCE_S
    assert not starts.expected("other")
