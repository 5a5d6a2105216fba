"""The APIs of providers beside chat: what goes out, what comes back, and who has none."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from serving.accounts.caller import ANYONE
from tests.asking import ASKED
from tests.conftest import Eventually
from tests.gateway.conftest import events
from tests.gateway.upstream.conftest import CANARY, DIALECTS, TEXT, World
from tests.providers import PROMPT_TOKENS, WORDS, Step

# Models that embed, and an alias.
OTHERS = ("e-openai", "e-gemini", "old-one")
MESSAGES = {"messages": [{"role": "user", "content": CANARY}], "max_tokens": 9}


async def respond(world: World, **fields: Any) -> httpx.Response:
    body = {"model": "m-openai", "input": CANARY, **fields}
    return await world.wire.post("/v1/responses", json=body)


async def say(world: World, path: str = "/v1/messages", **fields: Any) -> httpx.Response:
    body = {"model": "m-anthropic", **MESSAGES, **fields}
    return await world.wire.post(path, json=body)


def used(world: World, model: str) -> tuple[float, float]:
    labels = {"model": model}
    return (
        world.metric("serving_prompt_tokens_total", **labels),
        world.metric("serving_completion_tokens_total", **labels),
    )


async def test_a_response_goes_through_and_is_kept_nowhere(world: World) -> None:
    response = await respond(world, temperature=0.5)
    assert response.status_code == 200
    answer = response.json()
    assert answer["model"] == "m-openai"
    assert answer["output"][0]["content"][0]["text"] == TEXT
    (seen,) = world.openai.requests
    assert seen.path == "/v1/responses"
    assert seen.body == {
        "model": "their-openai", "input": CANARY, "temperature": 0.5, "store": False,
    }  # fmt: skip
    assert world.site.counted(outcome="ok") == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("store", True), ("background", True), ("previous_response_id", "resp_1")],
)
async def test_what_would_be_kept_is_not_sent(world: World, field: str, value: object) -> None:
    response = await respond(world, **{field: value})
    assert (response.status_code, response.json()["error"]["param"]) == (400, field)
    assert not world.openai.requests


async def test_a_streamed_response(world: World) -> None:
    response = await respond(world, stream=True)
    found = events(response.text)
    assert [name for name, _ in found] == [data["type"] for _, data in found]
    assert "".join(data.get("delta", "") for _, data in found) == TEXT
    assert {data["response"]["model"] for _, data in found if "response" in data} == {"m-openai"}
    assert found[-1][0] == "response.completed"


async def test_a_message_goes_through_with_anthropic_s_key(world: World) -> None:
    headers = {"anthropic-version": "2023-01-01", "authorization": "Bearer sk-any"}
    body = {"model": "m-anthropic", **MESSAGES, "top_k": 5}
    response = await world.wire.post("/v1/messages", json=body, headers=headers)
    assert response.status_code == 200
    assert response.json()["model"] == "m-anthropic"
    assert response.json()["content"][0]["text"] == TEXT
    (seen,) = world.doubles["anthropic"].requests
    assert seen.path == "/v1/messages"
    assert seen.body == {**body, "model": "their-anthropic"}
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert "sk-any" not in seen.headers.values()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_caller_tries_of_anthropic_s_goes_through(
    world: World, path: str, stream: bool
) -> None:
    """Its betas, which change what a body may say. Nobody else's APIs get them."""
    headers = {"anthropic-beta": "context-1m-2025-08-07,files-api-2025-04-14"}
    body = {"model": "m-anthropic", **MESSAGES, "stream": stream}
    await world.wire.post(path, json=body, headers=headers)
    await world.wire.post(path, json=body)
    with_it, without = world.doubles["anthropic"].requests
    assert with_it.headers["anthropic-beta"] == headers["anthropic-beta"]
    assert "anthropic-beta" not in without.headers
    others = [(f"m-{dialect}", "/v1/chat/completions") for dialect in DIALECTS]
    for model, other in (*others, ("m-openai", "/v1/responses"), ("e-gemini", "/v1/embeddings")):
        asked = MESSAGES if other.endswith("completions") else {"input": CANARY}
        body = {"model": model, **asked}
        response = await world.wire.post(other, json=body, headers=headers)
        seen = world.doubles[model[2:]].requests[-1]
        assert (response.status_code, "anthropic-beta" in seen.headers) == (200, False), model


@pytest.mark.parametrize("beta", [b"\xc3\xa9", b"a\tb"])
async def test_betas_that_no_header_can_have_are_refused(world: World, beta: bytes) -> None:
    headers = [(b"anthropic-beta", beta)]
    body = {"model": "m-anthropic", **MESSAGES}
    response = await world.wire.post("/v1/messages", json=body, headers=headers)
    assert response.status_code == 400
    assert "'anthropic-beta'" in response.json()["error"]["message"]
    assert not world.doubles["anthropic"].requests


async def test_a_streamed_message(world: World) -> None:
    response = await say(world, stream=True)
    found = events(response.text)
    assert [name for name, _ in found] == [data["type"] for _, data in found]
    assert found[0][1]["message"]["model"] == "m-anthropic"
    texts = [data["delta"]["text"] for name, data in found if name == "content_block_delta"]
    assert tuple(texts) == WORDS
    assert found[-1][0] == "message_stop"


async def test_tokens_are_counted(world: World) -> None:
    response = await say(world, "/v1/messages/count_tokens")
    assert response.json() == {"input_tokens": PROMPT_TOKENS}
    (seen,) = world.doubles["anthropic"].requests
    assert seen.path == "/v1/messages/count_tokens"


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_the_provider_s(world: World, stream: bool) -> None:
    await respond(world, stream=stream)
    await say(world, stream=stream)
    lines = world.log_lines("request")
    counts = [(line["prompt_tokens"], line["completion_tokens"]) for line in lines]
    assert counts == [(PROMPT_TOKENS, len(WORDS))] * 2
    assert not world.log_lines("upstream_without_usage")


async def test_an_answer_without_usage_is_told(world: World) -> None:
    for double in world.doubles.values():
        double.script = [Step(usage=False)]
    for stream in (False, True):
        assert (await respond(world, stream=stream)).status_code == 200
        assert (await say(world, stream=stream)).status_code == 200
    assert len(world.log_lines("upstream_without_usage")) == 4


@pytest.mark.parametrize("breaks", ["cut", "short", "error"])
async def test_a_stream_that_breaks_off_ends_with_an_error(world: World, breaks: str) -> None:
    for double in world.doubles.values():
        double.script = [Step(breaks=breaks, after=2)]
    for response in (await respond(world, stream=True), await say(world, stream=True)):
        name, data = events(response.text)[-1]
        assert "error" in name or "error" in data
        assert CANARY not in str(data)
    assert world.site.counted(outcome="error") == 2


@pytest.mark.parametrize(
    "failed",
    [
        {"id": "resp_1", "status": "failed", "error": {"code": "rate_limit_exceeded",
                                                       "message": "slow down"}},
        {"id": "resp_1", "status": "in_progress", "output": []},
        {"object": "list"},
        [],
        "no",
    ],
)  # fmt: skip
async def test_what_is_no_response_is_no_answer(world: World, failed: Any) -> None:
    world.openai.script = [Step(body=failed)]
    response = await respond(world)
    assert response.status_code in (429, 502)
    assert response.json()["error"]["message"]


async def test_a_response_that_fails_in_its_stream(world: World) -> None:
    failed = {"status": "failed", "error": {"message": "bad", "code": "server_error"}}
    event = {"type": "response.failed", "response": failed}
    frame = b"event: response.failed\ndata: " + httpx.Request("POST", "/", json=event).content
    world.openai.script = [Step(body=frame + b"\n\n", content_type="text/event-stream")]
    response = await respond(world, stream=True)
    assert response.status_code == 502


async def test_what_is_refused_is_told_in_the_caller_s_dialect(world: World) -> None:
    for double in world.doubles.values():
        double.script = [Step(status=400)]
    refused = await respond(world)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
    refused = await say(world)
    assert refused.status_code == 400
    assert refused.json()["type"] == "error"
    assert refused.json()["error"]["type"] == "invalid_request_error"


async def test_a_client_that_leaves_closes_the_request(
    world: World, eventually: Eventually
) -> None:
    world.openai.script = [Step(words=("word ",) * 1000, pace_s=0.01)]
    body = {"model": "m-openai", "input": CANARY, "stream": True}
    async with world.wire.stream("POST", "/v1/responses", json=body) as response:
        await anext(response.aiter_bytes())
    await eventually(lambda: world.openai.requests[0].closed_by_client)


async def test_embeddings(world: World) -> None:
    for dialect in ("openai", "gemini"):
        body = {"model": f"e-{dialect}", "input": CANARY, "dimensions": 2}
        response = await world.wire.post("/v1/embeddings", json=body)
        assert response.status_code == 200
        assert response.json()["model"] == f"e-{dialect}"
        assert response.json()["data"][0]["embedding"] == [0.25, -0.5]
        (seen,) = world.doubles[dialect].requests
        assert (seen.path, seen.body) == ("/v1/embeddings", {**body, "model": f"embed-{dialect}"})
    lines = world.log_lines("request")
    assert [line["prompt_tokens"] for line in lines] == [PROMPT_TOKENS] * 2
    listed = (await world.wire.get("/v4/models?model_type=EMBEDDING")).json()["items"]
    assert {item["id"] for item in listed} == {"e-openai", "e-gemini"}


@pytest.mark.parametrize("model", [*(f"m-{name}" for name in DIALECTS), *OTHERS])
async def test_every_endpoint_is_answered_or_refused_by_name(world: World, model: str) -> None:
    """The example of each endpoint is answered by what the provider has, or refused with the paths
    that answer; nothing is sent in an API that it is not for."""
    route = world.site.router.pipeline._resolver.resolve(model, ANYONE)
    refused = answered = 0
    for asking in ASKED:
        path = asking.path(model)
        sent = sum(len(double.requests) for double in world.doubles.values())
        response = await world.wire.post(path, **asking.sent(model))
        sent = sum(len(double.requests) for double in world.doubles.values()) - sent
        if asking.answer.needs in route.abilities:
            assert (response.status_code, sent) == (200, 1), (path, response.text)
            asking.check_names(response, model, route.model)
            answered += 1
        else:
            assert (response.status_code, sent) == (422, 0), (path, response.text)
            assert f"model '{model}' does not answer at" in response.text
            refused += 1
    assert answered
    assert refused
