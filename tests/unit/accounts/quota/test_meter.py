"""A router's own meters."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serving.accounts.quota.meter import Budget, InFlight, Rate, Unit, share, unit_of
from serving.catalogue.quota import LIMITS
from serving.catalogue.rate import SECOND


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


NOON = at("2026-11-30T12:00:00")


def test_each_limit_has_a_unit() -> None:
    assert [unit_of(name) for name in LIMITS] == [
        *(Unit.REQUESTS, Unit.TOKENS, Unit.IN_FLIGHT),
        *(Unit.TOKENS, Unit.TOKENS, Unit.COST, Unit.COST),
    ]


@pytest.mark.parametrize(
    ("limit", "routers", "expected"), [(10, 2, 5), (5, 2, 2), (1, 4, 1), (0, 2, 0), (7, 1, 7)]
)
def test_a_routers_share(limit: int, routers: int, expected: int) -> None:
    assert share(limit, routers) == expected


def test_a_rate_is_shared_by_the_routers_there_are() -> None:
    routers = 2
    meter = Rate("requests_per_minute", 60, lambda: routers)
    assert [meter.take(1, NOON) for _ in range(30)] == [0] * 30
    assert meter.take(1, NOON) == 2 * SECOND
    assert (meter.left(NOON), meter.reset_s(NOON)) == (0, 60.0)
    assert meter.take(1, NOON + 2 * SECOND) == 0


def test_a_budget_begins_anew_with_its_period() -> None:
    meter = Budget("tokens_per_day", 100, lambda: 1)
    assert meter.take(90, NOON) == 0
    assert meter.take(20, NOON) == 12 * 3600 * SECOND
    meter.charge(-50, NOON)
    assert meter.left(NOON) == 60
    tomorrow = at("2026-12-01T00:00:00")
    assert meter.left(tomorrow) == 100
    assert meter.take(100, tomorrow) == 0
    # Of a request of yesterday.
    meter.charge(-40, NOON)
    assert meter.left(tomorrow) == 0


def test_a_month_ends_with_its_last_day() -> None:
    meter = Budget("cost_per_month", 1, lambda: 1)
    assert meter.take(1, NOON) == 0
    assert meter.take(1, NOON) == 12 * 3600 * SECOND
    assert meter.reset_s(at("2026-12-01T00:00:00")) == 31 * 86_400


def test_requests_in_flight_come_and_go() -> None:
    meter = InFlight("requests_in_flight", 2, lambda: 1)
    assert [meter.take(1, NOON), meter.take(1, NOON)] == [0, 0]
    assert meter.take(1, NOON) > 0
    meter.charge(-1, NOON)
    assert (meter.take(1, NOON), meter.left(NOON), meter.running) == (0, 0, 2)
