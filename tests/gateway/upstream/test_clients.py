"""Clients that leave or stall."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import events
from tests.gateway.upstream.conftest import CANARY, CHAT, Start, World, open_request
from tests.providers import Step


@pytest.mark.parametrize("path", ["/v4/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_closes_the_providers_connection(
    world: World, eventually: Eventually, path: str, stream: bool
) -> None:
    world.openai.script = [Step(words=("word ",) * 1000, pace_s=0.02, delay_s=0 if stream else 60)]
    asked = CHAT if "chat" in path else {"prompt": CANARY}
    body = {"model": "m-openai", "stream": stream, **asked}
    reader, writer = await open_request(world.site, path, body)
    if stream:
        await reader.readuntil(b"word")
    await eventually(lambda: world.openai.requests)
    writer.close()
    await eventually(lambda: world.openai.requests[0].closed_by_client, 1)
    await eventually(lambda: world.site.counted(outcome="cancelled") == 1)
    assert world.attempts("cancelled") == world.site.counted() == 1


async def test_a_client_that_leaves_while_we_wait_to_retry(
    start: Start, eventually: Eventually
) -> None:
    world = await start()
    world.openai.script = [Step(503, {"retry-after": "15"})]
    body = {"model": "m-openai", "prompt": CANARY}
    _, writer = await open_request(world.site, "/v4/completions", body)
    await eventually(lambda: world.attempts("server_error") == 1)
    writer.close()
    await eventually(lambda: world.idle, 1)
    await eventually(lambda: world.site.counted(outcome="cancelled") == 1)
    assert len(world.openai.requests) == 1


async def test_the_deadline_closes_the_providers_connection(
    start: Start, eventually: Eventually
) -> None:
    world = await start(gateway={"request_timeout_s": 0.3})
    world.openai.script = [Step(words=("word ",) * 1000, pace_s=0.02)]
    response = await world.complete(stream=True)
    assert events(response.text)[-1][1]["error"]["code"] == "deadline_exceeded"
    await eventually(lambda: world.openai.requests[0].closed_by_client, 1)


@pytest.mark.parametrize("path", ["/v4/completions", "/v1/chat/completions"])
async def test_a_client_that_does_not_read_makes_the_provider_wait(
    world: World, eventually: Eventually, path: str
) -> None:
    words = ("Q" * 20_000,) * 2000  # 40 MB
    world.openai.script = [Step(words=words)]
    asked = CHAT if "chat" in path else {"prompt": CANARY}
    body = {"model": "m-openai", "stream": True, **asked}
    reader, writer = await open_request(world.site, path, body, buffer=4096)
    await eventually(lambda: world.openai.requests and world.openai.requests[0].sent)
    before = -1
    while before != world.openai.requests[0].sent:
        before = world.openai.requests[0].sent
        await asyncio.sleep(0.3)
    assert before < 15_000_000, "what the kernel's buffers hold, and little more"
    assert (await world.complete("gemini")).status_code == 200
    data = 0
    while piece := await reader.read(1 << 20):
        data += piece.count(b"Q")
    assert data == 40_000_000
    writer.close()
    await eventually(lambda: world.site.counted(outcome="ok") == 2)
