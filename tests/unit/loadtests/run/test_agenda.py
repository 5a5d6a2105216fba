from __future__ import annotations

import asyncio
import sys
import time

import pytest

from loadtests.clock import Clock
from loadtests.run.agenda import Agenda
from loadtests.run.alarm import LoopAlarm, TimerfdAlarm


@pytest.fixture(params=["timerfd", "loop"])
def agenda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    kind = LoopAlarm
    if request.param == "timerfd":
        if sys.platform != "linux":
            pytest.skip("timerfd is Linux's")
        kind = TimerfdAlarm
    monkeypatch.setattr("loadtests.run.agenda.make_alarm", kind)
    return str(request.param)


@pytest.mark.usefixtures("agenda")
async def test_calls_come_in_their_order_and_never_early() -> None:
    clock = Clock(time.monotonic())
    agenda = Agenda(clock)
    called: list[tuple[float, float]] = []
    done = asyncio.Event()
    times = [0.03, 0.01, 0.02, 0.01, -1.0]
    for when in times:
        agenda.at(when, lambda when=when: called.append((when, clock.now())))
    agenda.at(0.04, done.set)
    await asyncio.wait_for(done.wait(), 5)
    assert [when for when, _ in called] == sorted(times)
    assert all(at >= when for when, at in called)
    agenda.close()


@pytest.mark.usefixtures("agenda")
async def test_a_call_may_ask_for_others() -> None:
    clock = Clock(time.monotonic())
    agenda = Agenda(clock)
    called: list[int] = []
    done = asyncio.Event()

    def again(number: int) -> None:
        called.append(number)
        if number == 200:
            done.set()
        else:
            agenda.at(clock.now() - 1, lambda: again(number + 1))

    agenda.at(0.0, lambda: again(0))
    await asyncio.wait_for(done.wait(), 5)
    assert called == list(range(201))
    agenda.close()


@pytest.mark.usefixtures("agenda")
async def test_sockets_are_looked_at_however_much_is_late() -> None:
    agenda = Agenda(Clock(time.monotonic()))
    called: list[int] = []
    for number in range(100):
        agenda.at(0.0, lambda number=number: called.append(number))
    seen: list[int] = []

    def look() -> None:
        seen.append(len(called))
        if len(called) < 100:
            asyncio.get_running_loop().call_soon(look)

    look()
    async with asyncio.timeout(5):
        while len(called) < 100:
            await asyncio.sleep(0)
    assert any(0 < count < 100 for count in seen)
    agenda.close()


@pytest.mark.usefixtures("agenda")
async def test_nothing_is_called_after_the_end() -> None:
    agenda = Agenda(Clock(time.monotonic()))
    called: list[int] = []
    agenda.at(0.01, lambda: called.append(1))
    agenda.close()
    agenda.at(0.0, lambda: called.append(2))
    await asyncio.sleep(0.03)
    assert called == []
