"""The queue of a real vLLM engine is full: further requests are 503 with `retry-after` on every
endpoint, those that are in it go on, and there is room again as they end. No Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.catalogue.catalogue import Catalogue
from serving.observability.logs import open_log
from serving.router.router import Router
from serving.settings import Settings
from serving.wire.entry import Entry
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import REPLICA, TOKEN, EngineServer, engine_server
from tests.conftest import Eventually
from tests.live import BASE

ROOM = 3
LONG = {"model": BASE, "max_tokens": 400, "ignore_eos": True, "stream": True}
MESSAGES = [{"role": "user", "content": "Once"}]
CHAT = {
    "kind": "engine",
    "chat_template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}",
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    model = local_model(BASE) | CHAT
    model["engine_args"] |= {"max_num_queued_reqs": ROOM}
    return Catalogue.model_validate({"models": [model]})


@pytest.fixture(scope="module")
def engine(
    catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineServer]:
    with engine_server(catalogue.engines[0], tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture
async def client(
    catalogue: Catalogue, engine: EngineServer, tmp_path: Path, eventually: Eventually
) -> AsyncIterator[httpx.AsyncClient]:
    fields = {"host": "127.0.0.1", "port": 0, "api_keys": "sk-any", "cluster_token": TOKEN}
    router = Router(
        Settings.model_validate(fields),
        router="r1",
        own_host="127.0.0.1",
        drain_s=0.0,
        log=open_log("queue-test", str(tmp_path)),
    )
    await router.set_catalogue(catalogue)
    await router.start()
    port = engine.ready.link_port
    router.fleet.update([Entry(REPLICA, "engine", BASE, "127.0.0.1", port, "")])
    await eventually(lambda: router.fleet.ready(BASE) == 1)
    base = f"http://127.0.0.1:{router.port}"
    headers = {"x-api-key": "sk-any"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=60) as client:
        yield client
    await router.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "Once"}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v4/completions", {"prompt": "Once"}),
    ],
)
async def test_a_full_queue_is_503_with_retry_after(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any], stream: bool
) -> None:
    lasting = [asyncio.Event() for _ in range(ROOM)]

    async def last(begun: asyncio.Event) -> str:
        body = LONG | {"prompt": "Once upon a time"}
        text = ""
        async with client.stream("POST", "/v1/completions", json=body) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                text += line
                begun.set()
        return text

    running = [asyncio.create_task(last(begun)) for begun in lasting]
    async with asyncio.timeout(30):
        for begun in lasting:
            await begun.wait()
    body = {"model": BASE, "stream": stream, **fields}
    refused = await client.post(path, json=body)
    assert not any(task.done() for task in running), "the queue was not full any more"
    assert refused.status_code == 503, refused.text
    assert refused.json()["error"]["code"] == "overloaded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    for text in await asyncio.gather(*running):
        assert text.endswith("data: [DONE]")
    assert (await client.post(path, json=body)).status_code == 200
