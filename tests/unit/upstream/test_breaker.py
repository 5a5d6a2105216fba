from __future__ import annotations

import pytest

from serving.upstream.breaker import Breaker, CircuitOpen, State


class Site:
    """A breaker that opens after three failures for ten seconds, and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.states: list[State] = []
        self.breaker = Breaker(3, 10.0, on_change=self.states.append, clock=lambda: self.now)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.enter().failure()

    def refused(self) -> float:
        with pytest.raises(CircuitOpen) as caught:
            self.breaker.enter()
        return caught.value.retry_after_s


@pytest.fixture
def site() -> Site:
    return Site()


def test_failures_in_a_row_open_it(site: Site) -> None:
    site.fail(2)
    site.breaker.enter().success()
    site.fail(2)
    assert site.breaker.state == "closed"
    site.fail()
    assert site.states == ["open"]
    site.now += 4
    assert site.refused() == 6


def test_the_probe_decides(site: Site) -> None:
    site.fail(3)
    site.now += 10
    probe = site.breaker.enter()
    assert site.breaker.state == "half_open"
    assert site.refused() == 1
    probe.failure()
    assert site.refused() == 10
    site.now += 10
    site.breaker.enter().success()
    assert site.states == ["open", "half_open", "open", "half_open", "closed"]
    site.fail(2)
    assert site.breaker.state == "closed", "it starts from nothing again"


def test_an_answer_that_begins_closes_it_but_makes_up_for_no_failure(site: Site) -> None:
    site.fail(3)
    site.now += 10
    probe = site.breaker.enter()
    probe.answers()
    assert site.breaker.state == "closed"
    probe.failure()
    for _ in range(2):
        permit = site.breaker.enter()
        permit.answers()
        permit.failure()
    assert site.breaker.state == "open"


def test_a_refusal_says_that_it_is_there_and_no_more(site: Site) -> None:
    site.fail(2)
    site.breaker.enter().refused()
    site.fail()
    assert site.breaker.state == "open"
    site.now += 10
    site.breaker.enter().refused()
    assert site.breaker.state == "closed"


def test_a_cancelled_request_counts_neither_way(site: Site) -> None:
    site.fail(2)
    site.breaker.enter().neither()
    site.fail()
    site.now += 10
    site.breaker.enter().neither()
    assert site.breaker.state == "half_open"
    site.breaker.enter().success()
    assert site.breaker.state == "closed"


def test_a_permit_counts_once(site: Site) -> None:
    permit = site.breaker.enter()
    for _ in range(5):
        permit.failure()
    assert site.breaker.state == "closed"


def test_what_began_before_it_opened_does_not_prolong_it(site: Site) -> None:
    late = site.breaker.enter()
    site.fail(3)
    site.now += 9
    late.failure()
    assert site.refused() == 1
    other = site.breaker
    site.now += 1
    other.enter().success()
    assert other.state == "closed"
