"""Turns that never come: who waits too long, is put out of a full queue, or has a dead engine."""

from __future__ import annotations

import pytest
from vllm.exceptions import GracefulHTTPError, QueueOverflowError
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from tests.unit.engine.vllm.turns import (
    KEPT,
    SEQUENCES,
    Engine,
    names,
    settle,
    stop,
)

pytestmark = pytest.mark.usefixtures("no_engine")


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
