"""A process of the transformers engine behind a router: the whole path, without Ray."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.catalogue.catalogue import Catalogue
from serving.engine.launcher import EngineProcess, spawn
from serving.observability.logs import Log
from serving.router.router import Router
from serving.settings import Settings
from serving.wire.entry import Entry
from serving.wire.launch import EngineLaunch, EngineReady
from tests.conftest import Eventually
from tests.gateway.conftest import KEY, events
from tests.seq_shapes import write_t5

MODEL = "tiny-t5"
# A completion as long as this outlasts any test.
CONTEXT = 20_000
TOO_LONG = "way " * (CONTEXT + 1)


@dataclass
class Server:
    """An engine server and how to reach it."""

    process: EngineProcess
    ready: EngineReady
    catalogue: Catalogue

    def metric(self, name: str, **labels: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.ready.ops_port}/metrics", timeout=30).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("t5")
    write_t5(folder / MODEL)
    catalogue = Catalogue.model_validate(
        {
            "models": [
                {
                    "kind": "engine",
                    "id": MODEL,
                    "runtime": "transformers",
                    "weights": str(folder / MODEL),
                    "context": CONTEXT,
                    "dtype": "float32",
                    "gpus": 0,
                    "engine_args": {"threads": 1},
                }
            ]
        }
    )
    launch = EngineLaunch(
        spec=catalogue.engines[0].model_dump(mode="json"),
        replica="r#1",
        token="token",
        log_dir=str(folder / "logs"),
    )
    process = spawn(launch, os.environ | {"HF_HUB_OFFLINE": "1"}, output=None)
    try:
        ready = process.ready()
        assert ready is not None, "the engine server did not start"
        yield Server(process, ready, catalogue)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill_group()


@pytest.fixture
async def client(
    server: Server, log: Log, eventually: Eventually
) -> AsyncIterator[httpx.AsyncClient]:
    settings = {"host": "127.0.0.1", "port": 0, "api_keys": "sk-any", "cluster_token": "token"}
    router = Router(
        Settings.model_validate(settings), router="r1", own_host="127.0.0.1", drain_s=0.0, log=log
    )
    await router.set_catalogue(server.catalogue)
    ready = server.ready
    router.fleet.update(
        [Entry("r#1", "engine", MODEL, "127.0.0.1", ready.link_port, f"127.0.0.1:{ready.ops_port}")]
    )
    await router.start()
    await eventually(lambda: router.fleet.ready(MODEL) == 1)
    base = f"http://127.0.0.1:{router.port}"
    async with httpx.AsyncClient(base_url=base, headers=KEY, timeout=30) as found:
        yield found
    await router.close()


def body(prompt: str = "the water of his people", **fields: Any) -> dict[str, Any]:
    parameters = {"temperature": 0, "max_tokens": 40, **fields.pop("parameters", {})}
    return {"model": MODEL, "prompt": prompt, "model_parameters": parameters, **fields}


async def test_whole_and_streamed(client: httpx.AsyncClient) -> None:
    whole = (await client.post("/v4/completions", json=body())).json()
    assert whole["completion"]["finish_reason"] == "length"
    assert whole["token_usage"] == {"prompt": 6, "completion": 40, "total": 46}
    streamed = await client.post("/v4/completions", json=body(stream=True))
    frames = [data for _, data in events(streamed.text)]
    text = "".join(frame["completion"]["text"] for frame in frames)
    assert text == whole["completion"]["text"]
    assert len(frames) > 20
    assert frames[-1]["token_usage"] == whole["token_usage"]
    openai = await client.post(
        "/v1/completions",
        json={"model": MODEL, "prompt": body()["prompt"], "temperature": 0, "max_tokens": 40},
    )
    assert openai.json()["choices"][0]["text"] == text


async def test_many_at_once(client: httpx.AsyncClient, server: Server) -> None:
    prompts = [f"{'they said ' * (at % 5)}way {at}" for at in range(24)]
    steps = server.metric("serving_engine_step_rows_count", phase="decode")
    alone = [(await client.post("/v4/completions", json=body(prompt))).json() for prompt in prompts]
    one_by_one = server.metric("serving_engine_step_rows_count", phase="decode") - steps
    together = await asyncio.gather(
        *(client.post("/v4/completions", json=body(prompt)) for prompt in prompts)
    )
    assert [response.json() for response in together] == alone
    batched = server.metric("serving_engine_step_rows_count", phase="decode") - steps - one_by_one
    assert batched < one_by_one / 4


async def test_a_client_that_leaves_frees_its_row(
    client: httpx.AsyncClient, server: Server, eventually: Eventually
) -> None:
    # Greedy: a token that is drawn may be the last of its text at any time.
    openai = {"model": MODEL, "prompt": "the water of his people", "temperature": 0}
    for path, asked in (
        ("/v4/completions", body(stream=True, parameters={"max_tokens": CONTEXT})),
        ("/v1/completions", openai | {"stream": True, "max_tokens": CONTEXT}),
    ):
        before = server.metric("serving_engine_calls_total", outcome="cancelled")
        async with client.stream("POST", path, json=asked) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):  # and not a comment, while it waits
                    break
            assert server.metric("serving_engine_requests_running") == 1
        await eventually(
            lambda before=before: (
                server.metric("serving_engine_calls_total", outcome="cancelled") == before + 1
            ),
            30,
        )
        assert server.metric("serving_engine_requests_running") == 0


@pytest.mark.parametrize(
    ("path", "fields", "status", "code", "param"),
    [
        ("/v4/completions", {"images": [{"image_url": "data:,"}]}, 422, "invalid_field", "images"),
        (
            "/v4/completions",
            {"prompt": TOO_LONG},
            400,
            "context_length_exceeded",
            "prompt",
        ),
        ("/v1/completions", {"n": 2}, 422, "invalid_field", "n"),
        ("/v1/completions", {"logprobs": 5}, 422, "invalid_field", "logprobs"),
        ("/v1/chat/completions", {}, 400, "invalid_request", None),
    ],
)
async def test_errors_in_the_paths_envelope(
    client: httpx.AsyncClient,
    path: str,
    fields: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
) -> None:
    asked: dict[str, Any] = {"model": MODEL, **fields}
    if "chat" in path:
        asked["messages"] = [{"role": "user", "content": "way"}]
    else:
        asked.setdefault("prompt", "way")
    response = await client.post(path, content=json.dumps(asked))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert ("detail" in response.json()) is path.startswith("/v4")
