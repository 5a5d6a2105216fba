from __future__ import annotations

import itertools

from serving.router.retry_budget import RetryBudget


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(budget: RetryBudget, at_most: int = 10_000) -> int:
    """How many retries the budget has left."""
    return sum(1 for _ in itertools.takewhile(lambda _: budget.take(), range(at_most)))


def test_an_idle_router_may_retry_a_few() -> None:
    assert taken(RetryBudget(share=0.1, floor=5, clock=Clock())) == 5


def test_what_is_not_used_is_there_for_others() -> None:
    budget = RetryBudget(share=0.1, floor=5, clock=Clock())
    for _ in range(20):
        assert budget.take()
        budget.give_back()
    assert taken(budget) == 5


def test_a_busy_router_may_retry_a_share_of_its_requests() -> None:
    budget = RetryBudget(share=0.1, floor=5, clock=Clock())
    for _ in range(1000):
        budget.request()
    assert taken(budget) == 105


def test_what_left_the_window_counts_no_more() -> None:
    clock = Clock()
    budget = RetryBudget(share=0.1, floor=5, window_s=60, clock=clock)
    for _ in range(1000):
        budget.request()
    clock.now += 30
    assert taken(budget) == 105
    clock.now += 35  # the requests are gone, their retries are not
    assert not budget.take()
    clock.now += 30
    assert taken(budget) == 5


def test_a_long_silence_is_one_step() -> None:
    clock = Clock()
    budget = RetryBudget(floor=5, clock=clock)
    budget.request()
    assert taken(budget) == 5
    clock.now += 1e9
    assert taken(budget) == 5
    clock.now += 1
    assert not budget.take()


def test_failing_replicas_get_at_most_a_tenth_more_load() -> None:
    """Requests come steadily and all fail: of the retries, a tenth is let through."""
    clock = Clock()
    budget = RetryBudget(share=0.1, floor=5, window_s=60, clock=clock)
    retried = 0
    for _ in range(100 * 300):
        clock.now += 0.01
        budget.request()
        retried += budget.take()
    assert 2900 <= retried <= 3100
