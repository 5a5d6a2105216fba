"""A throttle pauses a transport for as long as what was read takes at its pace."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from loadtests.clock import Clock
from loadtests.wire.slow import Throttle
from tests.conftest import Eventually


class Reading:
    """What a throttle does with a transport."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def pause_reading(self) -> None:
        self.done.append("pause")

    def resume_reading(self) -> None:
        self.done.append("resume")


def transport(of: Any) -> asyncio.Transport:
    return cast(asyncio.Transport, of)


async def test_pauses_add_up(eventually: Eventually) -> None:
    reading, clock = Reading(), Clock(0.0)
    throttle = Throttle(clock, bytes_per_s=10_000)
    began = clock.now()
    for _ in range(3):  # TLS hands out more after a pause sometimes
        throttle.took(200, transport(reading))
    assert reading.done == ["pause"]
    await eventually(lambda: len(reading.done) > 1)
    assert clock.now() - began >= 0.06
    throttle.took(10, transport(reading))
    await eventually(lambda: reading.done == ["pause", "resume"] * 2)


async def test_nothing_goes_on_after_the_end() -> None:
    reading = Reading()
    throttle = Throttle(Clock(0.0), bytes_per_s=10_000)
    throttle.took(100, transport(reading))
    throttle.end()
    throttle.end()
    await asyncio.sleep(0.03)
    assert reading.done == ["pause"]
