"""What a provider has said of its usage by the time a request ends, however it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from serving.catalogue.providers import Provider
from serving.catalogue.spec import UpstreamSpec
from serving.engine.interface import Chunk, Tally
from serving.errors import ServingError
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.upstream.client import ProviderClient
from serving.upstream.engine import UpstreamEngine
from serving.wire.messages import CompletionCall, End, Head, HttpCall, Sampling
from tests.conftest import Eventually
from tests.providers import PROMPT_TOKENS, Double, Step, open_double

CHAT = HttpCall("r", "m", "POST", "/v1/chat/completions")
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
WORDS = tuple(f"word{number} " for number in range(200))


class Paper:
    """A reply that is always ready for more."""

    writable = True

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def head(self, head: Head) -> None:
        pass

    def data(self, data: bytes) -> None:
        self.parts.append(data)

    async def drained(self) -> None:
        pass


class World:
    """One model of one provider, whose double answers as the test says."""

    def __init__(self, double: Double, log: Log) -> None:
        self.double = double
        self.metrics = RouterMetrics()
        provider = Provider.model_validate(
            {
                "dialect": double.dialect,
                "base_url": double.base_url,
                "api_key_env": "KEY_OF_DOUBLE",
                "max_retries": 0,
            }
        )
        self.client = ProviderClient(
            "p", provider, routers=1, metrics=self.metrics, log=log, rng=random.Random(1)
        )
        spec = {"kind": "upstream", "id": "m", "provider": "p", "model": "theirs"}
        self.engine = UpstreamEngine(UpstreamSpec.model_validate(spec), self.client)
        self.tally = Tally()
        self.chunks: list[Chunk] = []
        self.paper = Paper()

    @property
    def without_usage(self) -> float:
        name = "serving_upstream_without_usage_total"
        return self.metrics.registry.get_sample_value(name, {"provider": "p"}) or 0

    async def generate(self, *, stream: bool = True) -> None:
        call = CompletionCall("r", "m", "hi", stream, Sampling(), "m")
        await self.engine.generate(call, self.chunks.append, self.tally)

    async def chat(self) -> None:
        await self.engine.http(CHAT, BODY, self.paper, self.tally)


async def cancelled(
    running: asyncio.Task[None], condition: Callable[[], Any], eventually: Eventually
) -> None:
    """Cancel it once the condition holds."""
    await eventually(condition)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


Start = Callable[[str], Awaitable[World]]


@pytest.fixture
async def start(log: Log, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    worlds: list[World] = []

    async def start_it(dialect: str) -> World:
        double = await open_double(dialect)
        monkeypatch.setenv("KEY_OF_DOUBLE", *double.keys)
        worlds.append(World(double, log))
        return worlds[-1]

    yield start_it
    for world in worlds:
        await world.client.close()
        await world.double.close()


async def test_an_answer_that_ended(start: Start) -> None:
    world = await start("openai")
    await world.generate()
    assert (world.tally.prompt_tokens, world.tally.completion_tokens) == (PROMPT_TOKENS, 3)
    assert world.chunks[-1].finish_reason == "stop"
    assert world.without_usage == 0


@pytest.mark.parametrize("chat", [True, False])
async def test_cancelled_after_the_provider_said_how_much(
    start: Start, eventually: Eventually, chat: bool
) -> None:
    """Gemini says it with every event."""
    world = await start("gemini")
    world.double.script = [Step(words=WORDS, pace_s=0.01)]
    running = asyncio.create_task(world.chat() if chat else world.generate())
    said: list[Any] = world.paper.parts if chat else world.chunks
    await cancelled(running, lambda: len(said) >= 3, eventually)
    used = world.tally.used()
    assert (used.finish_reason, used.prompt_tokens) == (None, PROMPT_TOKENS)
    assert 3 <= used.completion_tokens < len(WORDS)
    assert world.without_usage == 0


@pytest.mark.parametrize("chat", [True, False])
async def test_cancelled_before_the_provider_said_how_much(
    start: Start, eventually: Eventually, chat: bool
) -> None:
    world = await start("openai")
    world.double.script = [Step(words=WORDS, pace_s=0.01)]
    running = asyncio.create_task(world.chat() if chat else world.generate())
    said: list[Any] = world.paper.parts if chat else world.chunks
    await cancelled(running, lambda: len(said) >= 3, eventually)
    assert world.tally.guessed
    assert world.tally.prompt_tokens > 0
    assert 3 <= world.tally.completion_tokens < len(WORDS), "an event is a token at least"
    assert world.without_usage == 1


async def test_cancelled_before_the_provider_began(start: Start, eventually: Eventually) -> None:
    world = await start("openai")
    world.double.script = [Step(delay_s=60)]
    running = asyncio.create_task(world.generate(stream=False))
    await cancelled(running, lambda: world.double.requests, eventually)
    assert world.tally.used() == End(queue_s=world.tally.queue_s)
    assert world.without_usage == 0, "there was no answer that could have said it"


@pytest.mark.parametrize("dialect", ["gemini", "openai"])
async def test_an_answer_that_breaks_off(start: Start, dialect: str) -> None:
    world = await start(dialect)
    world.double.script = [Step(words=WORDS, breaks="cut", after=2)]
    with pytest.raises(ServingError):
        await world.generate()
    used = world.tally.used()
    said = dialect == "gemini"
    # Two events, of twelve bytes.
    assert used.completion_tokens == (2 if said else 3)
    assert used.guessed is not said
    assert used.guessed or used.prompt_tokens == PROMPT_TOKENS
    assert world.without_usage == (dialect == "openai")
