"""What a provider answers, as the client gets it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.conftest import events
from tests.gateway.upstream.conftest import CANARY, CHAT, DIALECTS, TEXT, World, text_of
from tests.providers import PROMPT_TOKENS, WORDS, Step


def chat_text(response: httpx.Response) -> str:
    chunks = [data for _, data in events(response.text) if data != "[DONE]"]
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_whole(world: World, dialect: str) -> None:
    response = await world.complete(dialect)
    assert response.status_code == 200
    assert response.json() == {
        "completion": {
            "text": TEXT,
            "finish_reason": "stop",
            "response_metadata": {"model": f"m-{dialect}"},
        },
        "token_usage": {"prompt": PROMPT_TOKENS, "completion": 3, "total": PROMPT_TOKENS + 3},
    }
    (seen,) = world.doubles[dialect].requests
    assert seen.path == "/v1/chat/completions"
    assert seen.body["model"] == f"their-{dialect}"
    assert seen.body["messages"] == [{"role": "user", "content": CANARY}]
    assert seen.body["temperature"] == 0.2
    assert "stream" not in seen.body
    assert seen.body.get("max_tokens") == (777 if dialect == "anthropic" else None)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_streamed(world: World, dialect: str) -> None:
    response = await world.complete(dialect, stream=True)
    frames = events(response.text)
    assert all(name == "" for name, _ in frames)
    assert text_of(response) == TEXT
    assert [data["completion"]["text"] for _, data in frames] == [*WORDS, ""]
    last = frames[-1][1]
    assert last["completion"]["finish_reason"] == "stop"
    assert last["token_usage"] == {"prompt": PROMPT_TOKENS, "completion": 3, "total": 12}
    (seen,) = world.doubles[dialect].requests
    assert seen.body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_chat_whole(world: World, dialect: str) -> None:
    response = await world.chat(dialect, temperature=0.9, tools=[])
    answer = response.json()
    assert answer["model"] == f"m-{dialect}"
    assert answer["choices"][0]["message"]["content"] == TEXT
    assert answer["usage"]["total_tokens"] == 12
    (seen,) = world.doubles[dialect].requests
    limit = {"max_tokens": 777} if dialect == "anthropic" else {}
    expected = {"model": f"their-{dialect}", **CHAT, "temperature": 0.9, "tools": [], **limit}
    assert seen.body == expected


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("asked", [None, {"include_usage": True}])
async def test_chat_streamed(world: World, dialect: str, asked: Any) -> None:
    response = await world.chat(dialect, stream=True, stream_options=asked)
    frames = events(response.text)
    assert frames[-1] == ("", "[DONE]")
    assert chat_text(response) == TEXT
    chunks = [data for _, data in frames[:-1]]
    assert {chunk["model"] for chunk in chunks} == {f"m-{dialect}"}
    (seen,) = world.doubles[dialect].requests
    assert seen.body["stream_options"]["include_usage"] is True
    if asked == {"include_usage": True}:
        assert chunks[-1]["usage"]["total_tokens"] == 12
    else:
        assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)
    model = f"m-{dialect}"
    assert world.metric("serving_completion_tokens_total", model=model) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_the_old_completions_endpoint(world: World, stream: bool) -> None:
    response = await world.legacy(stream=stream, stop="x", echo=False, max_tokens=5)
    (seen,) = world.openai.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.body["messages"] == [{"role": "user", "content": CANARY}]
    assert seen.body["max_completion_tokens"] == 5
    assert seen.body["stop"] == "x"
    assert "echo" not in seen.body
    if stream:
        chunks = [data for _, data in events(response.text)[:-1]]
        assert events(response.text)[-1] == ("", "[DONE]")
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == TEXT
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    else:
        chunks = [response.json()]
        assert chunks[0]["choices"] == [
            {"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}
        ]
        assert chunks[0]["usage"]["total_tokens"] == 12
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert {chunk["model"] for chunk in chunks} == {"m-openai"}


async def test_the_old_endpoint_has_its_old_default_of_16_tokens(world: World) -> None:
    await world.legacy()
    assert world.openai.requests[0].body["max_completion_tokens"] == 16


async def test_every_parameter_has_its_place(world: World) -> None:
    parameters = {"temperature": 0.5, "max_tokens": 9, "stop_sequences": ["a", "b"], "topP": 0.9,
                  "frequency_penalty": 0.1, "presence_penalty": -0.1}  # fmt: skip
    assert (await world.complete(model_parameters=parameters)).status_code == 200
    sent = world.openai.requests[0].body
    assert sent["temperature"] == 0.5
    assert sent["max_completion_tokens"] == 9
    assert sent["stop"] == ["a", "b"]
    assert sent["top_p"] == 0.9
    assert (sent["frequency_penalty"], sent["presence_penalty"]) == (0.1, -0.1)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_images_go_along(world: World, dialect: str) -> None:
    detail = {} if dialect == "anthropic" else {"detail": "high"}
    images = [{"image_url": "data:image/png;base64,AA==", **detail}]
    assert (await world.complete(dialect, images=images)).status_code == 200
    (message,) = world.doubles[dialect].requests[0].body["messages"]
    assert message["content"] == [
        {"type": "text", "text": CANARY},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", **detail}},
    ]


async def test_an_alias_of_a_retired_id_names_the_model_that_answered(world: World) -> None:
    response = await world.complete(model="old-one")
    assert response.json()["completion"]["response_metadata"] == {"model": "m-openai"}
    assert (await world.chat(model="old-one")).json()["model"] == "old-one"


async def test_usage_is_counted_and_logged_once(world: World) -> None:
    await world.complete()
    await world.complete(stream=True)
    assert world.metric("serving_prompt_tokens_total", model="m-openai") == 2 * PROMPT_TOKENS
    assert world.metric("serving_completion_tokens_total", model="m-openai") == 6
    assert world.site.counted(outcome="ok", model="m-openai", kind="upstream") == 2
    lines = world.log_lines("request")
    assert [(line["prompt_tokens"], line["completion_tokens"]) for line in lines] == [(9, 3)] * 2
    assert {line["replica"] for line in lines} == {"openai/their-openai"}
    assert world.attempts("ok") == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_does_not_say_its_usage(world: World, stream: bool) -> None:
    world.openai.script = [Step(usage=False)]
    assert (await world.complete(stream=stream)).status_code == 200
    assert world.metric("serving_upstream_without_usage_total", provider="openai") == 1
    assert len(world.log_lines("upstream_without_usage")) == 1
    line = world.log_lines("request")[0]
    assert (line["usage_known"], line["outcome"]) == (False, "ok")
    assert line["completion_tokens"] == (3 if stream else len(TEXT) // 4), "a guess"
    assert line["prompt_tokens"] > len(CANARY) // 4


async def test_finish_reasons_are_the_providers(world: World) -> None:
    for reason in ("length", "content_filter"):
        world.openai.script = [Step(finish_reason=reason)]
        for stream in (False, True):
            response = await world.complete(stream=stream)
            last = events(response.text)[-1][1] if stream else response.json()
            assert last["completion"]["finish_reason"] == reason


async def test_connections_are_reused(world: World) -> None:
    for stream in (False, True) * 3:
        await world.complete(stream=stream)
    pool: Any = world.site.router.hosted._clients["openai"]._connection.openai._client
    assert len(pool._transport._pool.connections) == 1
