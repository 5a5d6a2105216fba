"""What a real vLLM engine refuses, without Ray. Its queue is full: further requests are 503 with
`retry-after` on every endpoint, those that are in it go on, and there is room again as they end.
And refusals do not fill its log."""

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
    taken: list[str] = []
    stop = asyncio.Event()

    async def keep_asking() -> None:
        """However fast the engine is, there is always one that waits for room."""
        body = LONG | {"prompt": "Once upon a time"}
        while not stop.is_set():
            response = await client.post("/v1/completions", json=body)
            if response.status_code == 200:
                taken.append(response.text)

    asking = [asyncio.create_task(keep_asking()) for _ in range(2 * ROOM)]
    body = {"model": BASE, "stream": stream, **fields}
    async with asyncio.timeout(30):
        while (refused := await client.post(path, json=body)).status_code == 200:
            pass
    stop.set()
    await asyncio.gather(*asking)
    assert refused.status_code == 503, refused.text
    assert refused.json()["error"]["code"] == "overloaded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert taken
    assert all(text.endswith("data: [DONE]\n\n") for text in taken)
    assert (await client.post(path, json=body)).status_code == 200


async def test_refused_streams_do_not_fill_the_log(
    client: httpx.AsyncClient, engine: EngineServer
) -> None:
    """vLLM refuses these when it has begun to answer, and would log a traceback of each."""
    before = len(engine.output.read_bytes())
    bodies = {
        "/v1/completions": {"prompt": "Once", "logprobs": 30},
        "/v1/chat/completions": {"messages": MESSAGES, "stop_token_ids": [10**9]},
    }
    for path, body in bodies.items():
        for _ in range(20):
            refused = await client.post(path, json={"model": BASE, "stream": True, **body})
            assert refused.status_code == 400, refused.text
    written = engine.output.read_bytes()[before:].decode()
    assert "Traceback" not in written
    assert 1 <= written.count("was refused: VLLMValidationError") < 20
