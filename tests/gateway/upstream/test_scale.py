"""Hosted models at the endpoints of Scale's own clients."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import events
from tests.gateway.upstream.conftest import CANARY, DIALECTS, TEXT, World
from tests.providers import PROMPT_TOKENS


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("vendor", [True, False])
async def test_v5_whole(world: World, dialect: str, vendor: bool) -> None:
    model = f"{dialect}/m-{dialect}" if vendor else f"m-{dialect}"
    message = {"role": "user", "content": CANARY}
    chat = await world.wire.post(
        "/v5/chat/completions", json={"model": model, "messages": [message]}
    )
    text = await world.wire.post("/v5/completions", json={"model": model, "prompt": CANARY})
    assert chat.json()["choices"][0]["message"]["content"] == TEXT
    assert text.json()["choices"][0]["text"] == TEXT
    assert chat.json()["model"] == text.json()["model"] == model
    for seen in world.doubles[dialect].requests:
        assert (seen.path, seen.body["model"]) == ("/v1/chat/completions", f"their-{dialect}")
        assert seen.body["messages"] == [message]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_v5_streams_end_without_a_mark(world: World, dialect: str) -> None:
    body = {"model": f"m-{dialect}", "prompt": CANARY, "stream": True}
    said = events((await world.wire.post("/v5/completions", json=body)).text)
    assert "".join(data["choices"][0]["text"] for _, data in said) == TEXT


async def test_v5_names_the_vendor(world: World) -> None:
    listed = (await world.wire.get("/v5/chat/completions/models?model_vendor=openai")).json()
    assert [(item["model_name"], item["model_vendor"]) for item in listed["items"]] == [
        ("m-openai", "openai"),
        ("old-one", "openai"),
    ]
    wrong = await world.wire.post("/v5/completions", json={"model": "openai/m-gemini"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "unknown_model")


CHAT = "/v4/chat-completions"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_v4_chat(world: World, dialect: str) -> None:
    body = {
        "model": f"m-{dialect}",
        "messages": [{"content": CANARY}],
        "model_parameters": {"max_tokens": 9, "stop_sequences": ["x"]},
    }
    whole = (await world.wire.post(CHAT, json=body)).json()
    assert whole["chat_completion"]["message"] == {"role": "assistant", "content": TEXT}
    usage = {"prompt": PROMPT_TOKENS, "completion": 3, "total": PROMPT_TOKENS + 3}
    assert whole["token_usage"] == usage
    streamed = events((await world.wire.post(CHAT, json={**body, "stream": True})).text)
    assert "".join(data["completion"]["text"] for _, data in streamed) == TEXT
    assert streamed[-1][1]["token_usage"] == usage
    for seen in world.doubles[dialect].requests:
        assert seen.body["messages"] == [{"role": "user", "content": CANARY}]
        assert seen.body["stop"] == ["x"]
        limit = "max_completion_tokens" if dialect == "openai" else "max_tokens"
        assert seen.body[limit] == 9


@pytest.mark.parametrize(
    ("dialect", "name", "value"),
    [("openai", "top_k", 3), ("anthropic", "presence_penalty", 1), ("gemini", "top_k", 3)],
)
async def test_v4_chat_refuses_what_a_provider_cannot(
    world: World, dialect: str, name: str, value: int
) -> None:
    body = {
        "model": f"m-{dialect}",
        "messages": [{"content": CANARY}],
        "model_parameters": {name: value},
    }
    refused = await world.wire.post(CHAT, json=body)
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == f"model_parameters.{name}"
    assert not world.doubles[dialect].requests


LLM = "/v1/llm/completions-"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_llm_engine(world: World, dialect: str) -> None:
    body = {"prompt": CANARY, "max_new_tokens": 9, "return_token_log_probs": False}
    query = f"?model_endpoint_name=m-{dialect}"
    whole = (await world.wire.post(LLM + "sync" + query, json=body)).json()["output"]
    assert whole["text"] == TEXT
    assert (whole["num_prompt_tokens"], whole["num_completion_tokens"]) == (PROMPT_TOKENS, 3)
    streamed = events((await world.wire.post(LLM + "stream" + query, json=body)).text)
    outputs = [data["output"] for _, data in streamed]
    assert "".join(output["text"] for output in outputs) == TEXT
    assert [output["finished"] for output in outputs[-2:]] == [False, True]
    assert outputs[-1]["num_completion_tokens"] == 3
    for seen in world.doubles[dialect].requests:
        assert seen.body["messages"] == [{"role": "user", "content": CANARY}]
        assert "continuous_usage_stats" not in (seen.body.get("stream_options") or {})


@pytest.mark.parametrize(
    "fields", [{"return_token_log_probs": True}, {"guided_json": {}}, {"top_k": 3}]
)
async def test_llm_engine_refuses_what_no_provider_has(
    world: World, fields: dict[str, Any]
) -> None:
    body = {"prompt": CANARY, "max_new_tokens": 9, **fields}
    refused = await world.wire.post(LLM + "sync?model_endpoint_name=m-openai", json=body)
    assert (refused.status_code, [refused.json()["error"]["param"]]) == (422, list(fields))
    assert not world.openai.requests


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("path", ["completions", "chat-completions"])
async def test_calls_of_a_model(world: World, dialect: str, path: str) -> None:
    body = {"prompt": CANARY, "max_tokens": 9}
    if path == "chat-completions":
        body["chat_history"] = []
    url = f"/v4/models/m-{dialect}/{path}"
    whole = (await world.wire.post(url, json=body)).json()
    assert whole["completions"] == [[CANARY, [TEXT]]]
    assert (whole["prompt_tokens"], whole["response_tokens"]) == (PROMPT_TOKENS, 3)
    streamed = events((await world.wire.post(url, json={**body, "stream": True})).text)
    assert "".join(data["completions"][0][1][0] for _, data in streamed) == TEXT
    assert streamed[-1][1]["response_tokens"] == 3
    cannot = {"openai": "top_k", "anthropic": "presence_penalty", "gemini": "top_k"}[dialect]
    refused = await world.wire.post(url, json={**body, cannot: 1})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, cannot)
    for seen in world.doubles[dialect].requests:
        assert seen.body["messages"] == [{"role": "user", "content": CANARY}]
