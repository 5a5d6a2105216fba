"""The hand-over from vLLM, with stand-ins of the shape of vLLM's outputs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from serving.engine.interface import Chunk
from serving.engine.vllm.outputs import Outputs
from serving.errors import EngineFailed


def output(text: str, tokens: int = 1, reason: str | None = None) -> Any:
    part = SimpleNamespace(text=text, token_ids=[7] * tokens, finish_reason=reason)
    return SimpleNamespace(outputs=[part], finished=reason is not None)


def settle() -> None:
    """Does nothing: these tests need no usage."""


def collector(waiting: Any = None) -> Any:
    """Stands in for vLLM's `RequestOutputCollector`; `waiting` is the output it already has."""
    return SimpleNamespace(output=waiting, put=None)


async def test_every_step_is_emitted_where_it_is_put() -> None:
    said: list[Chunk] = []
    settled: list[int] = []
    outputs, queue = Outputs(said.append, lambda: settled.append(len(said))), collector()
    outputs.attach(queue)
    queue.put(output("a"))
    assert said == [Chunk("a")]
    queue.put(output("bc", 2))
    queue.put(output("", 0, "stop"))
    assert said[1:] == [Chunk("bc"), Chunk("", "stop")]
    assert settled == [2], "once, and before the last chunk"
    await asyncio.wait_for(outputs.finished, 1)


async def test_what_came_before_is_not_lost() -> None:
    said: list[Chunk] = []
    outputs = Outputs(said.append, settle)
    outputs.attach(collector(output("early", 1, "length")))
    assert [chunk.text for chunk in said] == ["early"]
    assert outputs.finished.done()


@pytest.mark.parametrize("reason", ["abort", "error"])
async def test_a_request_the_engine_gives_up_fails(reason: str) -> None:
    said: list[Chunk] = []
    outputs = Outputs(said.append, settle)
    outputs.put(output("", 0, reason))
    with pytest.raises(EngineFailed):
        await outputs.finished
    assert not said


async def test_the_engines_death_reaches_the_request() -> None:
    outputs = Outputs(lambda chunk: None, settle)
    outputs.put(ConnectionError("dead"))
    with pytest.raises(ConnectionError):
        await outputs.finished


async def test_a_failing_writer_ends_its_request_and_raises_nothing_into_vllm() -> None:
    def broken(chunk: Chunk) -> None:
        raise ValueError("cannot be written")

    outputs = Outputs(broken, settle)
    outputs.put(output("a"))
    outputs.put(output("b"))
    with pytest.raises(ValueError, match="cannot be written"):
        await outputs.finished


async def test_after_a_cancellation_nothing_is_emitted() -> None:
    said: list[Chunk] = []
    outputs = Outputs(said.append, settle)
    outputs.finished.cancel()
    outputs.put(output("late"))
    outputs.put(output("", 0, "abort"))
    assert not said
