"""The watchdog: which engines have to prove themselves, and which are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.watchdog import Watchdog
from serving.errors import Overloaded
from serving.observability.logs import open_log

SPEC = EngineSpec.model_validate({"kind": "engine", "id": "m", "weights": "/w", "context": 100})
QUIET_S, PROOF_S = 60.0, 30.0


class Engine(EchoEngine):
    """An engine whose steps and proofs the test decides."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.made = 0
        self.holds = 0
        self.proofs: list[float] = []
        self.answers = True
        self.refuses = False
        self.now: Callable[[], float] = lambda: 0.0

    def steps(self) -> int:
        return self.made

    def held(self) -> int:
        return self.holds

    async def prove(self) -> None:
        self.proofs.append(self.now())
        if self.refuses:
            raise Overloaded("the queue is full")
        if not self.answers:
            await asyncio.Event().wait()


class Time:
    """A clock that moves only when somebody sleeps; `each` is called with every second's half."""

    def __init__(self) -> None:
        self.now = 0.0
        self.each: Callable[[float], None] = lambda now: None

    async def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(3):
            await asyncio.sleep(0)  # a proof that is answered at once comes first
        while self.now < end:
            self.now = min(end, self.now + 0.5)
            self.each(self.now)
            await asyncio.sleep(0)


async def watch(
    engine: Engine, in_flight: Callable[[], int], until_s: float, each: Callable[[float], None]
) -> tuple[bool, float]:
    """Whether the engine is found stuck, and when."""
    time = Time()
    engine.now = lambda: time.now
    time.each = each
    watchdog = Watchdog(
        engine,
        in_flight,
        quiet_s=QUIET_S,
        proof_s=PROOF_S,
        log=open_log("engine", None),
        clock=lambda: time.now,
        sleep=time.sleep,
    )
    task = asyncio.create_task(watchdog.run())
    while not task.done() and time.now < until_s:
        await asyncio.sleep(0)
    task.cancel()
    return watchdog.stuck.is_set(), time.now


def nothing(now: float) -> None:
    pass


async def test_an_engine_that_makes_no_step_and_gives_no_answer_is_stuck() -> None:
    engine = Engine()
    engine.answers = False
    stuck, at = await watch(engine, lambda: 1, 1000, nothing)
    assert stuck
    assert QUIET_S + PROOF_S <= at <= QUIET_S * 1.2 + PROOF_S
    assert len(engine.proofs) == 1


async def test_an_idle_engine_proves_nothing() -> None:
    engine = Engine()
    engine.answers = False
    assert await watch(engine, lambda: 0, 1000, nothing) == (False, pytest.approx(1000, abs=10))
    assert engine.proofs == []


async def test_an_engine_that_makes_steps_proves_nothing_however_long_a_prompt_takes() -> None:
    engine = Engine()
    engine.answers = False

    def step(now: float) -> None:
        engine.made += now % 50 == 0  # slow ones

    stuck, _ = await watch(engine, lambda: 3, 1000, step)
    assert not stuck
    assert engine.proofs == []


async def test_an_engine_that_answers_its_proof_goes_on_and_is_asked_again() -> None:
    engine = Engine()
    stuck, _ = await watch(engine, lambda: 1, 400, nothing)
    assert not stuck
    assert len(engine.proofs) >= 4
    gaps = [b - a for a, b in zip(engine.proofs, engine.proofs[1:], strict=False)]
    assert all(gap >= QUIET_S for gap in gaps)


async def test_a_queue_that_leaks_have_filled_is_found_though_no_call_is_in_flight() -> None:
    engine = Engine()
    engine.holds, engine.refuses = 2048, True
    stuck, at = await watch(engine, lambda: 0, 1000, nothing)
    assert stuck
    assert at <= QUIET_S * 1.2


async def test_requests_that_come_to_a_quiet_engine_have_their_own_time() -> None:
    engine = Engine()
    engine.answers = False
    calls = [0]

    def come(now: float) -> None:
        calls[0] = int(now >= 500)

    stuck, at = await watch(engine, lambda: calls[0], 1000, come)
    assert stuck
    assert at >= 500 + QUIET_S * 0.9 + PROOF_S
