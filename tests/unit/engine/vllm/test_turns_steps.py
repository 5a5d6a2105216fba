"""Turns while steps are long: who gets fewer sequences for it, and who never waits."""

from __future__ import annotations

import asyncio

import pytest

from serving.engine.pace import LEAST
from serving.engine.vllm.patches import room
from tests.unit.engine.vllm.turns import (
    TOKENS,
    Engine,
    names,
    settle,
    stop,
)

pytestmark = pytest.mark.usefixtures("no_engine")


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


async def test_a_step_has_one_piece_of_each_account_s_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also of one that runs few, as its prompts are done as soon as they have begun."""
    engine = Engine(sequences=200, piece=10)
    now = 0.0
    monkeypatch.setattr(room.time, "monotonic", lambda: now)
    await asyncio.gather(*engine.send("b", "b"))
    await engine.begin("b")
    choices = engine.send("a", *names("a", 6), tokens=20)
    await settle()
    assert engine.sent == ["b", "a0"], "longer than a piece: vLLM cuts it"
    others = engine.send("b", *names("b", 4), tokens=5)
    await settle()
    assert engine.sent == ["b", "a0", "b0", "b1"], "who waits for its own prompt keeps nobody"
    await engine.begin("a0", "b0", "b1")
    assert engine.sent[4:] == ["a1", "b2", "b3"]
    await engine.end("a1")
    assert engine.sent[-1] == "a2"
    now += room.PACED_S  # nobody has come after another for so long
    await engine.step()
    assert engine.sent[-3:] == ["a3", "a4", "a5"]
    await stop(choices, others)
