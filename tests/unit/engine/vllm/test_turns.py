"""Whose request goes to the core next, with vLLM's own `AsyncLLM` and no engine."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor

from serving.engine.vllm.patches import BEAM, room
from serving.wire.messages import Standing
from tests.unit.engine.vllm.test_admission import add, request
from tests.unit.engine.vllm.turns import (
    KEPT,
    PROMPT,
    SEQUENCES,
    TOKENS,
    Engine,
    names,
    settle,
    stop,
)

pytestmark = pytest.mark.usefixtures("no_engine")


async def test_a_flood_of_one_account_waits_and_another_goes_to_what_is_kept() -> None:
    engine = Engine()
    flood = engine.send("a", *names("a", 50))
    await settle()
    # A little ahead of what runs, so that the core need not wait for the next one.
    assert engine.sent == names("a", SEQUENCES + KEPT)
    assert engine.turns.waiting == 50 - SEQUENCES - KEPT
    others = engine.send("b", "b0", "b1", "b2")
    await settle()
    assert "b0" not in engine.sent, "the core is full: it got a little more while A was alone"
    await engine.end(*names("a", 4))
    assert engine.sent == [*names("a", SEQUENCES + KEPT)[4:], "b0", "b1"], "only B may go there"
    await engine.end("a4", "a5", "a6", "a7")
    assert engine.sent == ["a8", "a9", "b0", "b1", "a10", "a11"], "as many of each account's"
    await engine.end("a8")
    assert engine.sent[-1] == "b2"
    await stop(flood, others)
    assert engine.turns.waiting == 0


async def test_two_accounts_that_flood_go_by_turns_and_by_what_was_written() -> None:
    engine = Engine()
    a, b = engine.send("a", *names("a", 30)), engine.send("b", *names("b", 30))
    await settle()
    await engine.end(*engine.sent)
    first = engine.sent
    assert len(first) == SEQUENCES - KEPT
    assert abs(sum(name[0] == "a" for name in first) - len(first) / 2) <= 1
    for name in first:  # A's wrote ten times as much
        engine.write(name, 100 if name[0] == "a" else 10)
    await engine.end(*first)
    assert all(name[0] == "b" for name in engine.sent)
    await stop(a, b)


async def test_who_never_waited_is_not_behind_a_flood_that_comes_later() -> None:
    """Its requests went straight on, but counted."""
    engine = Engine()
    for name in names("b", 200):
        await asyncio.gather(*engine.send("b", name))
        engine.write(name, 30)
        await engine.end(name)
    flood = engine.send("a", *names("a", 50))
    await settle()
    assert len(engine.sent) == SEQUENCES - KEPT
    other = engine.send("b", "b-late")
    await settle()
    assert "b-late" in engine.sent
    await stop(flood, other)


async def test_prompts_that_the_core_has_yet_to_run_are_one_step_s_worth() -> None:
    large = TOKENS // PROMPT
    engine = Engine(sequences=10 * large)
    calls = engine.send("a", *names("a", large + 5))
    await settle()
    assert len(engine.sent) == large
    await engine.begin("a0", "a1")
    assert len(engine.sent) == large + 2
    await stop(calls)


async def test_who_has_less_than_its_share_does_not_wait_for_one_that_has_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One call of many choices, which began while nobody else called, makes steps long: others do
    not wait until it has ended."""
    engine = Engine(sequences=200, step_ms=10.0)
    monkeypatch.setattr(room.time, "monotonic", lambda: 0.0)
    choices = engine.send("a", *names("a", 60))
    await settle()
    for _ in range(3):  # a step's worth of prompts at a time
        await engine.begin(*engine.sent)
    assert len(engine.sent) == 60
    others = engine.send("b", *names("b", 40))
    await settle()
    paced = engine.turns._room._pace.most
    assert paced < 50
    for _ in range(3):
        await engine.begin(*engine.sent)
    sent = [name for name in engine.sent if name[0] == "b"]
    assert paced // 2 <= len(sent) <= paced // 2 + 3, "its half of what may run"
    await stop(choices, others)


async def test_what_has_ended_makes_no_room_for_more_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Short steps of few sequences say nothing about many."""
    engine = Engine(sequences=200, step_ms=10.0)
    now = 0.0
    monkeypatch.setattr(room.time, "monotonic", lambda: now)
    first = engine.turns._room._pace.most
    for name in names("a", 300):
        await asyncio.gather(*engine.send("a", name))
        now += 0.001
        await engine.begin(name)
        now += 0.001
        await engine.end(name)
    assert engine.turns._room._pace.most == first


async def test_what_is_cancelled_leaves_at_once_and_makes_room() -> None:
    engine = Engine()
    flood = engine.send("a", *names("a", 20))
    await settle()
    waiting = engine.turns.waiting
    flood[15].cancel()
    await settle()
    assert engine.turns.waiting == waiting - 1
    assert "a15" not in engine.states
    # One that runs: vLLM aborts it when its caller leaves.
    await engine.llm.abort("a0", internal=True)
    await settle()
    assert engine.turns.waiting == waiting - 2
    assert "a10" in engine.sent
    await stop(flood)
    assert engine.turns.waiting == 0
    assert len(engine.llm.engine_core.added) == SEQUENCES + KEPT + 1, "none of those was sent"


async def test_one_that_is_cancelled_in_the_moment_of_its_turn_takes_none() -> None:
    engine = Engine()
    flood = engine.send("a", *names("a", SEQUENCES + KEPT + 2))
    await settle()
    flood[SEQUENCES + KEPT].cancel()  # its task has not run yet
    del engine.states["a0"]
    engine.llm.output_processor.update_scheduler_stats(None)
    await settle()
    assert engine.sent[-1] == f"a{SEQUENCES + KEPT + 1}"
    await stop(flood)


async def test_batch_requests_come_last_and_never_take_what_is_kept() -> None:
    engine = Engine()
    slow = engine.send("a", *names("slow", 20), batch=True)
    await settle()
    quick = engine.send("a", "quick")
    await settle()
    await engine.end("slow0", "slow1", "slow2")
    assert "quick" in engine.sent, "an account's own, too"
    assert engine.requests["slow5"].priority >= 2 > engine.requests["quick"].priority
    before = len(engine.sent)
    await engine.end("slow3")
    assert len(engine.sent) == before - 1, "no more batch requests while others call"
    await stop(slow, quick)


async def test_a_caller_s_own_priority_can_only_lower_it() -> None:
    engine = Engine()
    calls = [*engine.send("a", "up", priority=-9), *engine.send("a", "down", priority=9)]
    await asyncio.gather(*calls)
    assert engine.requests["up"].priority == 0
    assert engine.requests["down"].priority >= 2
    one = request("of-nobody")
    one.priority = -9
    await asyncio.create_task(add(engine.llm, one))
    assert one.priority == 0


async def test_priorities_are_left_out_where_the_scheduler_knows_none() -> None:
    engine = Engine()
    engine.turns._by_priority = False
    await asyncio.gather(*engine.send("a", "down", batch=True))
    assert engine.requests["down"].priority == 0


async def test_first_come_first_served_where_that_is_set() -> None:
    engine = Engine(order="fcfs")
    calls = [engine.send("a", *names("a", 14)), engine.send("b", "b0")]
    await settle()
    await engine.end("a0", "a1")
    assert engine.sent[-2:] == ["a10", "a11"]
    await stop(*calls)


async def test_steps_of_a_beam_search_do_not_wait() -> None:
    engine = Engine()
    flood = engine.send("a", *names("a", 20))
    await settle()
    step = request("beam")
    step.external_req_id, step.priority = f"cmpl-1{BEAM}0", -5

    async def call() -> None:
        engine.turns.begin(Standing("a"), 0, {})
        await add(engine.llm, step)

    await asyncio.create_task(call())
    assert "beam" in engine.sent
    assert step.priority == 0
    await stop(flood)


def test_what_is_borrowed() -> None:
    changed = "vLLM's AsyncLLM handles a step otherwise: see Turns"
    handler = inspect.getsource(AsyncLLM._run_output_handler)
    assert "output_processor.update_scheduler_stats(outputs.scheduler_stats)" in handler, changed
    assert "output_processor.propagate_error(e)" in handler, changed
    assert "self.output_processor.abort_requests(" in inspect.getsource(AsyncLLM.abort), changed
    assert list(inspect.signature(OutputProcessor.abort_requests).parameters) == [
        "self", "request_ids", "internal",
    ]  # fmt: skip
    assert "self.check_admission(" in inspect.getsource(AsyncLLM._add_request), changed
    scheduler = inspect.getsource(Scheduler)
    assert "key=lambda r: (r.priority, r.arrival_time)" in scheduler, "whom it preempts"
