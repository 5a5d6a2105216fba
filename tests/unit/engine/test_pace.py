from __future__ import annotations

import pytest

from serving.engine.pace import LEAST, Pace


def settle(pace: Pace, fixed_s: float, each_s: float, waiting: int, steps: int = 2000) -> int:
    """Run steps, each with as many sequences as may run of so many; the last number of them."""
    now, running = 0.0, 0
    for _ in range(steps):
        running = min(waiting, pace.most)
        pace.step(now, running)
        now += fixed_s + each_s * running
    return running


@pytest.mark.parametrize(("fixed_ms", "each_ms"), [(1.0, 0.1), (5.0, 0.2), (0.0, 1.0)])
def test_so_many_run_that_a_step_takes_what_it_may(fixed_ms: float, each_ms: float) -> None:
    running = settle(Pace(256, 0.02), fixed_ms / 1000, each_ms / 1000, waiting=500)
    assert fixed_ms + each_ms * running == pytest.approx(20.0, rel=0.2)


def test_all_run_where_a_sequence_costs_little() -> None:
    assert settle(Pace(256, 0.02), 0.01, 0.00001, waiting=500) == 256


def test_a_few_run_however_long_a_step_takes() -> None:
    assert settle(Pace(256, 0.02), 1.0, 0.1, waiting=500) == LEAST
    assert settle(Pace(2, 0.02), 1.0, 0.1, waiting=500) == 2


def test_without_a_bound_all_run() -> None:
    assert Pace(256, 0.0).most == 256
    assert settle(Pace(256, 0.0), 1.0, 1.0, waiting=500, steps=10) == 256


def test_a_pause_is_no_step() -> None:
    pace = Pace(64, 0.02)
    before = pace.most
    for number in range(100):
        pace.step(10.0 * number, 1)  # a request comes,
        pace.step(10.0 * number + 0.01, 0)  # and is done
    assert pace.most == before


def test_steps_that_are_long_for_another_reason_do_not_take_more_away() -> None:
    """Others, whom it does not hold back, run more than it allows."""
    pace = Pace(256, 0.02)
    before = pace.most
    for number in range(100):
        pace.step(0.1 * number, 200)
    assert pace.most == before


def test_steps_that_are_long_for_prompts_say_nothing_about_sequences() -> None:
    pace = Pace(256, 0.02)
    before = pace.most
    for number in range(100):
        pace.step(0.1 * number, 5, prompts=1000)
    assert pace.most == before
    for number in range(100, 200):
        pace.step(0.1 * number, 5, prompts=5)
    assert (low := pace.most) < before
    # One that is short in spite of them says a lot.
    for number in range(1000):
        pace.step(20.0 + 0.01 * number, 5, prompts=1000)
    assert pace.most > low


def test_after_what_made_steps_long_as_many_may_run_as_at_first() -> None:
    pace = Pace(256, 0.02)
    first, now = pace.most, 0.0
    settle(pace, 0.1, 0.01, waiting=500)
    assert pace.most == LEAST
    for _ in range(200):
        now += 0.001
        pace.step(now, 2)
    assert pace.most == first, "and no more: so few say nothing about many"
