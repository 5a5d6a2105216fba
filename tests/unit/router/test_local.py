"""An engine in the router's process, as the relay sees it."""

from __future__ import annotations

import asyncio

import pytest

from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.interface import Drained, Emit, Tally
from serving.errors import EngineFailed
from serving.observability.logs import Log
from serving.router.answer import Answer
from serving.router.local import HIGH_WATER, LocalReplica, LocalReply
from serving.wire.messages import CompletionCall, End, HttpCall, Sampling
from tests.conftest import Eventually

SPEC = EngineSpec(id="echo", weights="w", context=2000)
CALL = CompletionCall("r", "echo", "one two", True, Sampling(), "echo")


def replica(engine: EchoEngine, log: Log) -> LocalReplica:
    return LocalReplica("e", engine, address=("h", 1), state=lambda: "ready", log=log)


async def until_end(answer: Answer) -> bytes:
    data = b""
    while answer.end is None and answer.failed is None:
        await answer.wait()
        data += answer.take()
    return data


async def test_an_answer(log: Log, eventually: Eventually) -> None:
    local = replica(EchoEngine(SPEC), log)
    answer = local.open(CALL)
    assert local.in_flight == local.load.in_flight == 1
    assert b'"text":"two "' in await until_end(answer)
    assert answer.end is not None
    assert answer.end.completion_tokens == 2
    answer.abandon()
    await eventually(lambda: local.in_flight == 0)


async def test_failures_are_final(log: Log) -> None:
    engine = EchoEngine(SPEC)
    local = replica(engine, log)
    engine.dead = True
    for call in (CALL, HttpCall("r", "echo", "POST", "/v1/completions")):
        answer = local.open(call, b"{}")
        await until_end(answer)
        assert answer.failed is not None
        assert isinstance(answer.failed.error, EngineFailed)
        assert not answer.failed.retryable


async def test_a_bug_is_logged_and_not_shown(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EchoEngine(SPEC)

    async def broken(call: CompletionCall, emit: Emit, drained: Drained, tally: Tally) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(engine, "generate_paced", broken)
    answer = replica(engine, log).open(CALL)
    await until_end(answer)
    assert answer.failed is not None
    assert answer.failed.error.status == 500
    assert "secret" not in answer.failed.error.message


@pytest.mark.parametrize("begun", [False, True])
async def test_abandon_stops_the_engine(log: Log, eventually: Eventually, begun: bool) -> None:
    engine = EchoEngine(SPEC)
    engine.interval_s = 60
    local = replica(engine, log)
    answer = local.open(CALL)
    if begun:
        await eventually(lambda: engine.running)
    answer.abandon()
    await eventually(lambda: local.in_flight == 0)
    assert engine.running == 0
    assert answer.end == (End(prompt_tokens=2, queue_s=0.0) if begun else End())
    assert answer.failed is None


async def test_a_failure_says_what_was_used(log: Log, eventually: Eventually) -> None:
    engine = EchoEngine(SPEC)
    engine.interval_s = 0.02
    answer = replica(engine, log).open(CALL)
    await eventually(lambda: answer.head is not None)
    engine.dead = True
    await until_end(answer)
    assert answer.failed is not None
    assert answer.failed.usage.prompt_tokens == 2
    assert answer.failed.usage.completion_tokens >= 1


async def test_closing_ends_what_runs(log: Log) -> None:
    engine = EchoEngine(SPEC)
    engine.interval_s = 60
    local = replica(engine, log)
    answer = local.open(CALL)
    await asyncio.sleep(0)
    await local.close()
    assert answer.failed is not None
    assert engine.running == 0


class Nobody:
    def cancel(self, stream: int) -> None:
        raise AssertionError


async def test_who_does_not_read_makes_the_engine_wait() -> None:
    answer = Answer(Nobody(), 1)
    reply = LocalReply(answer)
    reply.data(b"x" * (HIGH_WATER - 1))
    assert reply.writable
    await reply.drained()
    reply.data(b"y")
    assert not reply.writable
    waiting = asyncio.create_task(reply.drained())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert len(answer.take()) == HIGH_WATER
    await asyncio.wait_for(waiting, 1)
    assert reply.writable


async def test_what_is_forwarded_leaves_nothing_to_wait_for() -> None:
    answer = Answer(Nobody(), 1)
    reply = LocalReply(answer)
    taken: list[bytes] = []
    answer.forward = lambda data, now: taken.append(data) is None
    reply.data(b"x" * 2 * HIGH_WATER)
    assert reply.writable
    assert taken == [b"x" * 2 * HIGH_WATER]
