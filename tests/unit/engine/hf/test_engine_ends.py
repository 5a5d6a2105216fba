"""Callers of the transformers engine that leave, full memory, and a model that fails."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

from serving.catalogue.spec import EngineSpec
from serving.engine.hf import engine as hf_engine
from serving.engine.interface import Suspect, Tally
from serving.errors import EngineFailed, Overloaded
from serving.wire.messages import HttpCall
from tests.conftest import Eventually
from tests.unit.engine.conftest import HALF, OPEN, Completion, Reference, Start, call_of, gate
from tests.unit.engine.hf.prompts import LONG, PROMPTS


async def test_cancelling_frees_the_row(
    start: Start, reference: Callable[[str], Reference], eventually: Eventually
) -> None:
    for name in ("t5", "mpt"):
        engine = await start(name)
        steps = gate(engine)
        results = [Completion() for _ in range(3)]
        tasks = [
            asyncio.create_task(result.of(engine, prompt, max_tokens=LONG))
            for result, prompt in zip(results, PROMPTS, strict=False)
        ]
        steps.release(8)
        await eventually(lambda results=results: all(len(r.chunks) > 3 for r in results))
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert engine.load().running == 2
        steps.release(OPEN)
        await asyncio.gather(tasks[0], tasks[2])
        assert tasks[1].cancelled()
        said = len(results[1].chunks)
        for at in (0, 2):
            assert results[at].text.rstrip(HALF) == reference(name).text(PROMPTS[at], LONG)
        assert len(results[1].chunks) == said
        assert results[1].last.finish_reason is None
        used = results[1].tally
        assert used.prompt_tokens == len(reference(name).tokenizer.encode(PROMPTS[1]))
        assert said <= used.completion_tokens <= LONG


async def test_cancelling_what_waits(start: Start, eventually: Eventually) -> None:
    engine = await start("mpt", max_batch_size=1)
    steps = gate(engine)
    first = asyncio.create_task(Completion().of(engine, "one", max_tokens=LONG))
    waiting = Completion()
    second = asyncio.create_task(waiting.of(engine, "two"))
    await eventually(lambda: engine.load().waiting == 1)
    second.cancel()
    await asyncio.sleep(0)
    assert engine.load().waiting == 0
    assert waiting.tally == Tally(), "it has used nothing"
    steps.release(OPEN)
    await first


async def test_the_queue_has_an_end(start: Start, eventually: Eventually) -> None:
    registry = CollectorRegistry()
    engine = await start("mpt", max_batch_size=1, max_waiting=1, registry=registry)
    steps = gate(engine)
    first = asyncio.create_task(Completion().of(engine, "one", max_tokens=LONG))
    await eventually(lambda: engine.load().running == 1)
    second = asyncio.create_task(Completion().of(engine, "two"))
    await eventually(lambda: engine.load().waiting == 1)
    assert registry.get_sample_value("serving_engine_requests_running") == 1
    assert registry.get_sample_value("serving_engine_requests_waiting") == 1
    with pytest.raises(Overloaded):
        await Completion().of(engine, "three")
    steps.release(OPEN)
    await asyncio.gather(first, second)


async def test_memory_bounds_the_batch(start: Start, reference: Callable[[str], Reference]) -> None:
    """Room for two requests at their longest: no request is lost, and no more than two run."""
    engine = await start("mpt", max_cache_tokens=400)
    most = 0

    async def one(prompt: str) -> Completion:
        found = Completion()

        def emit(chunk: Any) -> None:
            nonlocal most
            most = max(most, engine.load().running)
            found.chunks.append(chunk)

        await engine.generate(call_of(prompt, max_tokens=LONG), emit, Tally())
        return found

    for prompt, found in zip(
        PROMPTS, await asyncio.gather(*(one(prompt) for prompt in PROMPTS)), strict=True
    ):
        assert found.text.rstrip(HALF) == reference("mpt").text(prompt, LONG)
    assert most == 2


@pytest.mark.parametrize(("name", "cell"), [("t5", 2 * 3 * 64 * 4), ("mpt", 2 * 3 * 64 * 4)])
async def test_a_gpus_memory_bounds_the_batch(
    start: Start, monkeypatch: pytest.MonkeyPatch, name: str, cell: int
) -> None:
    """A cell: keys and values of three layers, 64 floats each."""
    rows = (await start(name))._batcher._rows
    with torch.inference_mode():
        assert rows.cell_bytes() == cell
    spec = EngineSpec(id="m", weights="w", context=100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (cell * 1000, cell * 9999))
    limits = hf_engine._limits(spec, hf_engine.Arguments(), rows, torch.device("cuda"))
    assert limits.cells == 700
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (cell * 100, cell * 9999))
    with pytest.raises(ValueError, match="there is memory for 70 tokens"):
        hf_engine._limits(spec, hf_engine.Arguments(), rows, torch.device("cuda"))


async def test_the_model_fails(start: Start, eventually: Eventually) -> None:
    engine = await start("mpt", max_batch_size=2)
    rows = engine._batcher._rows
    step = rows.decode

    def decode(tokens: Any) -> Any:
        if len(tokens) == 2 and rows._mask.shape[1] > 30:
            raise RuntimeError("CUDA out of memory")
        return step(tokens)

    rows.decode = decode  # type: ignore[method-assign]
    tasks = [
        asyncio.create_task(Completion().of(engine, prompt, max_tokens=LONG))
        for prompt in ("one", "two", "three")
    ]
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, EngineFailed)
        assert "CUDA" not in result.message
    with pytest.raises(EngineFailed):
        await engine.check()
    with pytest.raises(EngineFailed):
        await Completion().of(engine, "four")
    assert (engine.load().running, engine.load().waiting) == (0, 0)


@pytest.mark.parametrize("openai", [False, True])
async def test_the_call_that_the_model_fails_of_is_a_suspect(start: Start, openai: bool) -> None:
    engine = await start("mpt")
    rows = engine._batcher._rows
    admit = rows.admit

    def fail(prompts: Any) -> Any:
        if any(len(prompt) > 20 for prompt in prompts):
            raise RuntimeError("CUDA error")
        return admit(prompts)

    rows.admit = fail  # type: ignore[method-assign]
    other = asyncio.create_task(Completion().of(engine, "one", max_tokens=LONG))
    while not engine.load().running:
        await asyncio.sleep(0.001)
    assert engine.suspects() == []
    prompt = "a long prompt " * 20
    call: Any = call_of(prompt, max_tokens=2)
    body = b""
    if openai:
        call = HttpCall("r1", "m", "POST", "/v1/completions")
        body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 2}).encode()
    run = engine.generate(call, lambda _: None, Tally())
    if openai:
        run.close()
        run = engine.http(call, body, Silent(), Tally())
    with pytest.raises(EngineFailed):
        await run
    with pytest.raises(EngineFailed):
        await other
    assert engine.suspects() == [Suspect(call, body)]
    assert engine.suspects()[0].call is call


class Silent:
    """A reply that nobody reads."""

    writable = True

    def head(self, head: Any) -> None:
        pass

    def data(self, data: bytes) -> None:
        pass

    async def drained(self) -> None:
        pass


async def test_closing_ends_what_runs(start: Start, eventually: Eventually) -> None:
    engine = await start("mpt")
    steps = gate(engine)
    task = asyncio.create_task(Completion().of(engine, "one", max_tokens=LONG))
    await eventually(lambda: engine.load().running == 1)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    steps.release(1)
    await closing
    with pytest.raises(EngineFailed):
        await task


async def test_chunks_are_emitted_in_the_event_loop(start: Start) -> None:
    engine = await start("t5")
    threads: set[int] = set()

    def emit(chunk: Any) -> None:
        threads.add(threading.get_ident())

    await engine.generate(call_of("way"), emit, Tally())
    assert threads == {threading.get_ident()}


async def test_a_writer_that_fails_ends_its_own_request_only(
    start: Start, reference: Callable[[str], Reference]
) -> None:
    engine = await start("t5")

    def emit(chunk: Any) -> None:
        raise ValueError("broken")

    broken, sound = await asyncio.gather(
        engine.generate(call_of("way"), emit, Tally()),
        Completion().of(engine, PROMPTS[0]),
        return_exceptions=True,
    )
    assert isinstance(broken, ValueError)
    assert isinstance(sound, Completion)
    assert sound.text == reference("t5").text(PROMPTS[0], 40)
    assert engine.load().running == 0
