"""Whose request goes to the core next, with vLLM's own `AsyncLLM` and no engine."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from vllm.exceptions import GracefulHTTPError, QueueOverflowError
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.output_processor import OutputProcessor

from serving.engine.pace import LEAST
from serving.engine.queue_limits import QueueLimits
from serving.engine.vllm.patches import BEAM, room
from serving.engine.vllm.patches.admission import free_failed_requests
from serving.engine.vllm.patches.turns import Turns
from serving.observability.engine_metrics import QueueMetrics
from serving.wire.messages import Standing
from tests.unit.engine.vllm.test_admission import add, bare_llm, request

PROMPT = 3  # tokens of `request`
SEQUENCES, KEPT = 8, 2
TOKENS = 100


class Engine:
    """`llm` and what it takes turns by."""

    def __init__(self, sequences: int = SEQUENCES, **limits: Any) -> None:
        self.llm = llm = bare_llm()
        scheduler = llm.vllm_config.scheduler_config
        scheduler.max_num_batched_tokens, scheduler.max_num_seqs = TOKENS, sequences
        scheduler.max_num_active_seqs, scheduler.policy = None, "priority"
        scheduler.max_num_queued_reqs = None
        free_failed_requests(llm)
        self.registry = CollectorRegistry()
        kept = QueueLimits(reserve=KEPT / SEQUENCES, **limits)
        self.turns = Turns(llm, kept, QueueMetrics(self.registry))
        self.waits: dict[str, float] = {}
        self.requests: dict[str, Any] = {}

    def send(
        self,
        owner: str,
        *names: str,
        batch: bool = False,
        size: int = 0,
        priority: int = 0,
        tokens: int = PROMPT,
    ) -> list[asyncio.Task[None]]:
        """Calls of one request each, with so long a prompt."""

        async def call(name: str) -> None:
            self.turns.begin(Standing(owner, batch=batch), size, self.waits)
            one = request(name)
            one.priority, one.prompt_token_ids = priority, [1] * tokens
            self.requests[name] = one
            await add(self.llm, one)

        return [asyncio.create_task(call(name)) for name in names]

    @property
    def states(self) -> dict[str, Any]:
        found: dict[str, Any] = self.llm.output_processor.request_states
        return found

    @property
    def sent(self) -> list[str]:
        """The requests that the core has got and not ended."""
        return [name for name in self.llm.engine_core.added if name in self.states]

    async def begin(self, *names: str) -> None:
        """The core has run these prompts: a step."""
        for name in names:
            self.states[name].is_prefilling = False
        await self.step()

    async def end(self, *names: str) -> None:
        """These end in a step."""
        for name in names:
            del self.states[name]
        await self.step()

    def write(self, name: str, tokens: int) -> None:
        """The core has written so many tokens for this one."""
        text = SimpleNamespace(num_output_tokens=lambda: tokens)
        self.turns._room._running[name].text = text

    async def step(self) -> None:
        self.llm.output_processor.update_scheduler_stats(None)
        await settle()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncLLM, "errored", False)
    monkeypatch.setattr(AsyncLLM, "__del__", lambda self: None)


def names(owner: str, count: int) -> list[str]:
    return [f"{owner}{number}" for number in range(count)]


async def stop(*calls: list[asyncio.Task[None]]) -> None:
    tasks = [task for call in calls for task in call]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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


async def test_while_steps_are_long_a_flood_gets_fewer_sequences_and_another_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step takes 1 ms, and 1 ms more for each sequence; 10 ms are allowed."""
    engine = Engine(sequences=200, step_ms=10.0)
    now = 0.0
    monkeypatch.setattr(room.time, "monotonic", lambda: now)
    await asyncio.gather(*engine.send("b", "b0"))
    await engine.end("b0")
    flood = engine.send("a", *names("a", 2000))
    await settle()
    ran = []
    for _ in range(600):
        ran.append(len(engine.sent))
        now += 0.001 * (1 + len(engine.sent))
        oldest = engine.sent[0]
        await engine.begin(*engine.sent)
        await engine.end(oldest)
    assert max(ran) <= 40, "at its beginning, before a step was seen"
    assert 5 <= sum(ran[300:]) / 300 <= 11
    others = engine.send("b", "b1", "b2")
    await settle()
    assert engine.sent[-2:] == ["b1", "b2"]
    now += room.PACED_S  # nobody but A has called for so long
    for _ in range(200):
        await engine.begin(*engine.sent)
    assert len(engine.sent) > 100
    await stop(flood, others)


async def test_a_few_requests_do_not_wait_however_long_steps_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(sequences=200, step_ms=10.0)
    now = 0.0
    monkeypatch.setattr(room.time, "monotonic", lambda: now)
    await asyncio.gather(*engine.send("b", "b"))
    flood = engine.send("a", *names("a", 500))
    await settle()
    for _ in range(200):
        now += 0.1
        oldest = engine.sent[0]
        await engine.begin(*engine.sent)
        await engine.end(oldest)
    assert engine.turns._room._pace.most == LEAST
    others = engine.send("b", *names("b", LEAST + 1))
    await settle()
    assert [name for name in engine.sent if name[0] == "b"] == names("b", LEAST)
    await stop(flood, others)


async def test_long_prompts_of_another_take_no_sequence_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps are long for the prompts in them, however few run."""
    engine = Engine(sequences=200, step_ms=10.0)
    now, first = 0.0, engine.turns._room._pace.most
    monkeypatch.setattr(room.time, "monotonic", lambda: now)
    await asyncio.gather(*engine.send("b", "b"))
    calls = engine.send("a", *names("a", 60), tokens=TOKENS - 10)
    await settle()
    waited = []
    for number in range(50):
        calls += engine.send("b", f"b{number}")
        await settle()
        waited.append(f"b{number}" not in engine.sent)
        now += 0.06
        begun = engine.sent
        await engine.begin(*begun)
        await engine.end(*begun)
    assert not any(waited)
    assert engine.turns._room._pace.most == first
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


async def test_who_waits_too_long_is_503() -> None:
    engine = Engine(wait_s=0.01)
    flood = engine.send("a", *names("a", SEQUENCES + KEPT + 1))
    with pytest.raises(GracefulHTTPError, match=r"waited 0\.01 s"):
        await flood[-1]
    assert engine.turns.waiting == 0
    assert f"a{SEQUENCES + KEPT}" not in engine.states
    assert engine.metric("serving_queue_refused_total", reason="late") == 1
    await stop(flood[:-1])


async def test_a_full_queue_puts_out_the_newest_of_who_has_the_most() -> None:
    engine = Engine()
    engine.llm.scheduler_config.max_num_queued_reqs = 20
    flood = engine.send("a", *names("a", 20))
    await settle()
    with pytest.raises(QueueOverflowError):
        await engine.send("a", "a-more")[0]
    other = engine.send("b", "b0")
    await settle()
    assert "b0" in engine.states
    with pytest.raises(GracefulHTTPError, match="others have fewer"):
        await flood[-1]
    assert "a19" not in engine.states
    assert len(engine.states) == 20
    await stop(flood[:-1], other)


async def test_bytes_that_wait_are_bounded() -> None:
    engine = Engine(bytes=10_000)
    flood = engine.send("a", *names("a", SEQUENCES + KEPT + 4), size=2000)
    await settle()
    assert engine.metric("serving_queue_bytes") <= 10_000
    assert engine.turns.waiting == 4
    with pytest.raises(GracefulHTTPError, match="too many bytes"):
        await engine.send("a", "a-more", size=2000)[0]
    other = engine.send("b", "b0", size=2000)
    await settle()
    assert "b0" in engine.states
    with pytest.raises(GracefulHTTPError, match="others have fewer"):
        await flood[-1]
    with pytest.raises(GracefulHTTPError, match="too many bytes"):
        await engine.send("c", "c0", size=20_000)[0]
    await stop(flood[:-1], other)


async def test_an_engine_that_dies_ends_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    flood = engine.send("a", *names("a", 20))
    await settle()
    monkeypatch.setattr(AsyncLLM, "errored", True)
    engine.llm.output_processor.propagate_error(EngineDeadError())
    for call in flood[SEQUENCES + KEPT :]:
        with pytest.raises(EngineDeadError):
            await call
    with pytest.raises(EngineDeadError):
        await engine.send("a", "late")[0]
    assert engine.turns.waiting == 0


async def test_metrics_tell_what_waits_and_how_long_it_waited() -> None:
    engine = Engine()
    calls = [engine.send("a", *names("a", 15)), engine.send("b", "b0", "b1", batch=True)]
    await settle()
    assert engine.metric("serving_queue_requests", priority="interactive") == 5
    assert engine.metric("serving_queue_requests", priority="batch") == 2
    await engine.end(*names("a", 10))
    assert engine.metric("serving_queue_requests", priority="interactive") == 0
    count = "serving_queue_wait_seconds_count"
    assert engine.metric(count, priority="interactive") == 5
    assert list(engine.waits)[:5] == names("a", 15)[10:]
    assert "a0" not in engine.waits, "it did not wait"
    await stop(*calls)


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
