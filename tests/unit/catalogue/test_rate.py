"""The cell rate algorithm, with times of our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.catalogue import rate
from serving.catalogue.rate import MINUTE, SECOND

NOW = 1_800_000_000 * SECOND


def test_a_minutes_worth_passes_at_once_and_then_one_each_second() -> None:
    tat = 0
    for _ in range(60):
        assert rate.wait(tat, NOW, 1, 60) <= 0
        tat = rate.after(tat, NOW, 1, 60)
    assert rate.wait(tat, NOW, 1, 60) == SECOND
    assert rate.wait(tat, NOW + SECOND, 1, 60) <= 0
    assert rate.room(tat, NOW, 60) == 0
    assert rate.refilled(tat, NOW) == 60.0


def test_a_limit_of_nothing_lets_nothing_pass() -> None:
    assert rate.wait(0, NOW, 1, 0) > 0
    assert rate.room(0, NOW, 0) == 0


@given(
    limit=st.integers(1, 10**9),
    sent=st.lists(st.tuples(st.integers(0, MINUTE), st.integers(1, 10**6)), max_size=50),
)
def test_no_window_has_more_than_a_bucket_and_what_refills_it(
    limit: int, sent: list[tuple[int, int]]
) -> None:
    tat, now = 0, NOW
    passed: list[tuple[int, int]] = []
    for pause, units in sent:
        now += pause
        if rate.wait(tat, now, units, limit) <= 0:
            tat = rate.after(tat, now, units, limit)
            passed.append((now, units))
    for first in range(len(passed)):
        total = 0
        for at, units in passed[first:]:
            total += units
            assert total * MINUTE <= limit * (MINUTE + at - passed[first][0])


@given(limit=st.integers(1, 10**6), units=st.integers(1, 10**6))
def test_what_is_given_back_is_free_again(limit: int, units: int) -> None:
    tat = rate.after(NOW, NOW, units, limit)
    # Rounded against the caller, by a nanosecond at most.
    assert 0 <= rate.after(tat, NOW, -units, limit) - NOW <= 1
