"""A process watches itself: on clocks that the test sets."""

from __future__ import annotations

import asyncio

import pytest

from loadtests.measure.client import Watch


class Machine:
    """Clocks that stand still unless they are moved."""

    def __init__(self) -> None:
        self.now, self.used, self.offset = 100.0, 5.0, 1.7e9

    def spend(self, seconds: float, busy: float) -> None:
        self.now += seconds
        self.used += seconds * busy

    def watch(self) -> Watch:
        return Watch(
            "0",
            clock=lambda: self.now,
            cpu=lambda: self.used,
            wall=lambda: self.now + self.offset,
        )


def test_lateness_of_timers() -> None:
    machine = Machine()
    watch = machine.watch()
    for late in [0.001] * 95 + [0.08] * 5:
        machine.spend(0.02, 0.1)
        watch.look(machine.now - late)
    figures = watch.figures(due={"steady": 3})
    assert figures.late_p50_ms == pytest.approx(1)
    assert figures.late_p99_ms == pytest.approx(80, rel=0.002)
    assert figures.late_max_ms == pytest.approx(80)
    assert figures.due == {"steady": 3}
    assert (figures.wall_s, figures.cpu_s) == (pytest.approx(2), pytest.approx(0.2))


def test_the_busiest_seconds_are_not_averaged_away() -> None:
    machine = Machine()
    watch = machine.watch()
    for busy in (0.1, 1.0, 0.1, 0.1):
        for _ in range(100):
            machine.spend(0.021, busy)
            watch.look(machine.now)
    assert watch.figures(due={}).busiest > 0.9


def test_a_clock_that_was_set() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.spend(10, 0.1)
    assert watch.figures(due={}).clock_step_s == pytest.approx(0, abs=1e-3)
    machine.offset += 2
    assert watch.figures(due={}).clock_step_s == pytest.approx(2, abs=1e-3)


async def test_in_a_real_loop() -> None:
    watch = Watch("0")
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0.1)
    task.cancel()
    assert watch.figures(due={}).wall_s >= 0.1
    assert watch.figures(due={}).late_max_ms < 10_000
