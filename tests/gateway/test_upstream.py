"""Hosted providers through a whole router: a real HTTP server in front, doubles of the providers
behind, loopback TCP between."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import KEY, Open, Site, events, request_head
from tests.providers import PROMPT_TOKENS, WORDS, Double, Step, error_body, open_double

TEXT = "".join(WORDS)
DIALECTS = ("openai", "anthropic", "gemini")
CANARY = "canary-prompt"
CHAT = {"messages": [{"role": "user", "content": CANARY}]}


class World:
    """A router, a double per dialect, a client. `m-DIALECT` is called `their-DIALECT` there."""

    def __init__(self, site: Site, doubles: dict[str, Double], wire: httpx.AsyncClient) -> None:
        self.site = site
        self.doubles = doubles
        self.wire = wire

    @property
    def openai(self) -> Double:
        return self.doubles["openai"]

    async def complete(self, dialect: str = "openai", **fields: Any) -> httpx.Response:
        body = {"model": f"m-{dialect}", "prompt": CANARY, **fields}
        return await self.wire.post("/v4/completions", json=body)

    async def chat(self, dialect: str = "openai", **fields: Any) -> httpx.Response:
        body = {"model": f"m-{dialect}", **CHAT, **fields}
        return await self.wire.post("/v1/chat/completions", json=body)

    async def legacy(self, dialect: str = "openai", **fields: Any) -> httpx.Response:
        body = {"model": f"m-{dialect}", "prompt": CANARY, **fields}
        return await self.wire.post("/v1/completions", json=body)

    def metric(self, name: str, **labels: str) -> float:
        return self.site.metrics.registry.get_sample_value(name, labels) or 0.0

    def attempts(self, result: str, provider: str = "openai") -> float:
        return self.metric("serving_upstream_attempts_total", provider=provider, result=result)

    @property
    def idle(self) -> bool:
        clients = self.site.router.hosted._clients.values()
        replicas = self.site.router.hosted.replicas.values()
        return not any(c.in_flight or c.waiting for c in clients) and not any(
            r.in_flight for r in replicas
        )

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.site.log_text().splitlines()]
        return [line for line in lines if line["event"] == event]


Start = Callable[..., Awaitable[World]]


@pytest.fixture
async def start(
    open_site: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> AsyncIterator[Start]:
    """`await start(max_retries=0)`: a world whose providers have these settings."""
    worlds: list[World] = []
    async with AsyncExitStack() as stack:

        async def start_it(*, gateway: dict[str, Any] | None = None, **settings: Any) -> World:
            doubles = {name: await open_double(name) for name in DIALECTS}
            providers = {}
            for name, double in doubles.items():
                (key,) = double.keys
                monkeypatch.setenv(f"KEY_OF_{name.upper()}", key)
                providers[name] = {
                    "dialect": name,
                    "base_url": double.base_url,
                    "api_key_env": f"KEY_OF_{name.upper()}",
                    **settings,
                }
            models = [
                {"kind": "upstream", "id": f"m-{name}", "provider": name, "vision": True,
                 "model": f"their-{name}", "max_output": 777}
                for name in DIALECTS
            ]  # fmt: skip
            retired = {"kind": "retired", "id": "old-one", "provider": "openai",
                       "retired_on": "2024-01-04"}  # fmt: skip
            hosted = {
                "models": [*models, retired],
                "providers": providers,
                "aliases": {"old-one": "m-openai"},
                "router": {"replicas": 1},
            }
            site = await open_site(hosted=hosted, **(gateway or {}))
            wire = await stack.enter_async_context(site.wire())
            worlds.append(World(site, doubles, wire))
            return worlds[-1]

        yield start_it
        for world in worlds:
            # Whatever happened, no turn stays taken and neither a key nor a prompt is in the log.
            await eventually(lambda world=world: world.idle, 2)
            text = world.site.log_text()
            assert CANARY not in text
            assert "0123456789" not in text
            assert all(not d.at_once for d in world.doubles.values())
    servers = [double.server for world in worlds for double in world.doubles.values()]
    servers += [world.site.router._http for world in worlds]
    await asyncio.gather(*(server.close() for server in servers if server))


@pytest.fixture
async def world(start: Start) -> World:
    return await start(max_retries=0)


def text_of(response: httpx.Response) -> str:
    return "".join(data["completion"]["text"] for _, data in events(response.text))


def chat_text(response: httpx.Response) -> str:
    chunks = [data for _, data in events(response.text) if data != "[DONE]"]
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


# answers


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
    assert world.metric("serving_completion_tokens_total", model="m-openai") == 0


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


# what a provider cannot do


CANNOT: list[tuple[str, dict[str, Any], str]] = [
    ("openai", {"top_k": 5}, "model_parameters.top_k"),
    ("gemini", {"top_k": 5}, "model_parameters.top_k"),
    ("gemini", {"frequency_penalty": 0.5}, "model_parameters.frequency_penalty"),
    ("anthropic", {"top_k": 5}, "model_parameters.top_k"),
    ("anthropic", {"presence_penalty": 0.5}, "model_parameters.presence_penalty"),
    ("anthropic", {"stop_sequences": ["x", " \n"]}, "model_parameters.stop_sequences"),
    ("openai", {"reasoning_effort": "low"}, "model_parameters.reasoning_effort"),
]


async def test_what_a_provider_cannot_do_is_a_422(world: World) -> None:
    for dialect, parameters, param in CANNOT:
        response = await world.complete(dialect, model_parameters=parameters)
        assert response.status_code == 422
        assert response.json()["error"]["param"] == param
    assert not any(double.requests for double in world.doubles.values())
    assert world.site.counted(outcome="rejected") == len(CANNOT)


async def test_an_image_detail_that_would_be_ignored(world: World) -> None:
    images = [{"image_url": "https://a/b.png", "detail": "low"}]
    response = await world.complete("anthropic", images=images)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "images.0.detail"


IGNORED: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, "seed"),
    ({"logprobs": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"temperature": 1.5}, "temperature"),
    ({"stop": "\n"}, "stop"),
    ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "tools"),
]


async def test_what_anthropic_ignores_in_a_chat_is_a_422(world: World) -> None:
    for fields, param in IGNORED:
        response = await world.chat("anthropic", **fields)
        assert response.status_code == 422
        assert response.json()["error"]["param"] == param
    harmless = {"logprobs": False, "presence_penalty": 0, "response_format": {"type": "text"}}
    assert (await world.chat("anthropic", **harmless)).status_code == 200


NO_COUNTERPART: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ["a", "b"]}, "prompt"),
    ({"prompt": [1, 2, 3]}, "prompt"),
    ({"echo": True}, "echo"),
    ({"logprobs": 1}, "logprobs"),
    ({"suffix": "x"}, "suffix"),
    ({"best_of": 2}, "best_of"),
    ({"made_up": 1}, "made_up"),
]


async def test_what_chat_has_no_counterpart_of_is_a_422(world: World) -> None:
    for fields, param in NO_COUNTERPART:
        response = await world.legacy(**fields)
        assert response.status_code == 422
        assert response.json()["error"]["param"] == param
    assert not world.openai.requests


async def test_what_cannot_be_sent_does_not_look_like_a_failing_provider(start: Start) -> None:
    world = await start(breaker_failures=1)
    odd = (
        rb'"a\ud800b"', rb'"a\udc00"', b'"\xff"', b'"\xed\xa0\x80"', b"[" * 5000 + b"]" * 5000,
        b'{"a": 1e999}', b"NaN", b"123456789012345678901234567890",
    )  # fmt: skip
    for value in odd:
        for path, field in (
            ("/v4/completions", b"prompt"),
            ("/v1/chat/completions", b"messages"),
            ("/v1/completions", b"prompt"),
        ):
            body = b'{"model": "m-openai", "%b": %b}' % (field, value)
            response = await world.wire.post(path, content=body)
            assert response.status_code in (200, 400, 422), (path, value, response.text)
    assert (await world.complete()).status_code == 200


# refusals and failures before the first byte


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_request_is_the_callers(start: Start, dialect: str, stream: bool) -> None:
    world = await start(max_retries=2, breaker_failures=1)
    world.doubles[dialect].script = [
        Step(400, body=error_body(dialect, 400, "no such parameter: sk-abcdefgh"))
    ]
    for response in (
        await world.complete(dialect, stream=stream),
        await world.chat(dialect, stream=stream),
    ):
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["code"] == "invalid_request"
        assert "no such parameter: [key]" in error["message"]
        assert response.headers["x-should-retry"] == "false"
    assert len(world.doubles[dialect].requests) == 2
    assert world.attempts("client_error", dialect) == 2
    world.doubles[dialect].script = [Step()]
    assert (await world.complete(dialect)).status_code == 200


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_refused_key_is_the_operators(world: World, dialect: str) -> None:
    world.doubles[dialect].keys = {"sk-another"}
    for response in (await world.complete(dialect, stream=True), await world.chat(dialect)):
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "upstream_misconfigured"
        assert "refused this installation's key" in response.json()["error"]["message"]
        assert "canary" not in response.text
        assert response.headers["x-should-retry"] == "false"
    assert world.attempts("misconfigured", dialect) == 2


async def test_a_missing_key_is_named_but_not_guessed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_OF_OPENAI")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-0123456789")
    response = await world.complete()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "model_unavailable"
    assert "KEY_OF_OPENAI" in response.json()["error"]["message"]
    assert not world.openai.requests
    status = (await world.wire.get("/status")).json()["models"]
    (model,) = [model for model in status if model["id"] == "m-openai"]
    assert (model["kind"], model["ready"]) == ("upstream", False)
    assert model["replicas"][0]["state"] == "no_key"
    assert (await world.wire.get("/ready")).status_code == 200


async def test_a_model_that_the_provider_does_not_have(world: World) -> None:
    world.openai.script = [Step(404)]
    response = await world.complete()
    assert response.status_code == 502
    assert "their-openai" in response.json()["error"]["message"]


async def test_a_prompt_that_is_too_long(world: World) -> None:
    body = error_body("openai", 400, "maximum context length", "context_length_exceeded")
    world.openai.script = [Step(400, body=body)]
    assert (await world.complete()).json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_may_pass_is_tried_again(start: Start, dialect: str) -> None:
    world = await start()
    headers = {"retry-after-ms": "5"}
    statuses = (408, 409, 429, 500, 503, 529)
    for status in statuses:
        for stream in (False, True):
            world.doubles[dialect].script = [Step(status, headers), Step(status, headers), Step()]
            assert (await world.complete(dialect, stream=stream)).status_code == 200
    calls = 2 * len(statuses)
    assert len(world.doubles[dialect].requests) == 3 * calls
    assert world.metric("serving_upstream_retries_total", provider=dialect) == 2 * calls
    assert world.site.counted(outcome="ok") == world.site.counted() == calls


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(429, "rate_limited", 429), (500, "upstream_failed", 502), (503, "overloaded", 503)],
)
async def test_what_does_not_pass_is_told(
    start: Start, status: int, code: str, expected: int
) -> None:
    world = await start(max_retries=1)
    world.openai.script = [Step(status, {"retry-after": "0.02"})]
    for response in (await world.complete(stream=True), await world.chat()):
        assert response.status_code == expected
        assert response.json()["error"]["code"] == code
        assert "retry-after" in response.headers
    assert len(world.openai.requests) == 4


async def test_retry_after_is_waited_for(start: Start) -> None:
    world = await start()
    world.openai.script = [Step(429, {"retry-after": "0.3"}), Step()]
    began = time.monotonic()
    assert (await world.complete()).status_code == 200
    assert time.monotonic() - began >= 0.3


async def test_a_long_retry_after_is_passed_on(start: Start) -> None:
    world = await start()
    world.openai.script = [Step(429, {"retry-after": "40"})]
    response = await world.complete()
    assert (response.status_code, response.headers["retry-after"]) == (429, "40")
    assert len(world.openai.requests) == 1


async def test_geminis_retry_delay_is_in_the_body(start: Start) -> None:
    world = await start()
    (body,) = error_body("gemini", 429, "quota")
    body["error"]["details"] = [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
    ]
    world.doubles["gemini"].script = [Step(429, body=[body])]
    response = await world.complete("gemini")
    assert (response.status_code, response.headers["retry-after"]) == (429, "35")


async def test_a_quota_that_is_spent_is_not_tried_again(start: Start) -> None:
    world = await start()
    body = error_body("openai", 429, "You exceeded your current quota", "insufficient_quota")
    world.openai.script = [Step(429, body=body)]
    assert (await world.complete()).status_code == 429
    assert len(world.openai.requests) == 1


NO_ANSWERS = (
    Step(body=b"<html>Welcome</html>", content_type="text/html"),
    Step(body=b"{not json"),
    Step(body=[]),
    Step(body={"choices": []}),
    Step(body={"choices": "none"}),
    Step(body={"choices": ["none"]}),
    Step(body={"choices": [{"index": [], "finish_reason": "stop"}]}),
    Step(body={"choices": [{"message": "hi", "finish_reason": "stop"}]}),
    Step(body={"choices": [{"message": {"content": "hi"}, "finish_reason": None}]}),
    Step(body={"object": "list", "data": []}),
    Step(302, {"location": "http://127.0.0.1:9/"}, body=b""),
    Step(502, body=b"<html>bad gateway</html>", content_type="text/html"),
)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_none(start: Start, stream: bool) -> None:
    world = await start(max_retries=0, breaker_failures=1000)
    for step in NO_ANSWERS:
        world.openai.script = [step]
        for response in (await world.complete(stream=stream), await world.chat(stream=stream)):
            assert response.status_code == 502, step
            assert response.json()["error"]["code"] == "upstream_failed"
            assert "html" not in response.text
    assert world.site.counted(outcome="error") == world.site.counted() == 2 * len(NO_ANSWERS)


async def test_a_provider_that_is_not_there(start: Start) -> None:
    world = await start(max_retries=1, base_url="http://127.0.0.1:9/v1")
    response = await world.complete()
    assert response.status_code == 502
    assert "the connection to provider 'openai' failed" in response.json()["error"]["message"]
    assert world.attempts("connection") == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_is_silent(start: Start, stream: bool) -> None:
    world = await start(max_retries=0, timeout_s=0.2)
    world.openai.script = [Step(delay_s=30)]
    response = await world.complete(stream=stream)
    assert response.status_code == 502
    assert "silent for 0.2 s" in response.json()["error"]["message"]
    assert world.attempts("timeout") == 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_whose_first_event_is_an_error_is_tried_again(
    start: Start, dialect: str
) -> None:
    world = await start()
    world.doubles[dialect].script = [Step(breaks="error", after=0), Step()]
    response = await world.complete(dialect, stream=True)
    assert text_of(response) == TEXT
    assert len(world.doubles[dialect].requests) == 2


# failures after the first byte


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("breaks", ["cut", "short", "error", "hang"])
async def test_a_stream_that_breaks_off_says_so(start: Start, dialect: str, breaks: str) -> None:
    world = await start(timeout_s=0.2)
    world.doubles[dialect].script = [Step(breaks=breaks)]
    response = await world.complete(dialect, stream=True)
    (first, middle), (name, last) = events(response.text)
    assert (first, middle["completion"]["text"]) == ("", "Hello")
    assert name == "error"
    assert last["error"]["code"] == "upstream_failed"
    response = await world.chat(dialect, stream=True)
    *_, (name, last) = events(response.text)
    assert name == ""
    assert last["error"]["code"] == "upstream_failed"
    assert "[DONE]" not in response.text
    assert len(world.doubles[dialect].requests) == 2, "no retry after the first byte"
    assert world.site.counted(outcome="error") == world.site.counted() == 2
    assert len(world.log_lines("upstream_broke_off")) == 2


# clients that leave or stall


async def open_request(
    site: Site, path: str, body: dict[str, Any], buffer: int = 0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", await site.listen()))
    data = json.dumps(body).encode()
    head = request_head({"content-length": str(len(data)), "connection": "close", **KEY}, path)
    await loop.sock_sendall(sock, head + data)
    return await asyncio.open_connection(sock=sock, limit=1024)


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


# limits and the circuit


async def test_no_more_requests_at_once_than_allowed(start: Start) -> None:
    world = await start(max_concurrency=3)
    world.openai.script = [Step(delay_s=0.1)]
    responses = await asyncio.gather(*(world.complete(stream=n % 2 == 0) for n in range(6)))
    assert [response.status_code for response in responses] == [200] * 6
    assert world.openai.most_at_once == 3


async def test_more_than_may_wait_are_refused(start: Start, eventually: Eventually) -> None:
    world = await start(max_concurrency=1)
    world.openai.script = [Step(delay_s=0.5)]
    running = [asyncio.create_task(world.complete()) for _ in range(2)]
    await eventually(lambda: world.site.router.hosted._clients["openai"].waiting == 1)
    response = await world.complete()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert [(await task).status_code for task in running] == [200, 200]


async def test_the_circuit_opens_and_closes(start: Start) -> None:
    world = await start(max_retries=0, breaker_failures=3, breaker_s=0.4)
    world.openai.script = [Step(500)]
    for _ in range(3):
        assert (await world.complete()).status_code == 502
    began = time.monotonic()
    response = await world.complete()
    assert time.monotonic() - began < 0.2
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")
    assert response.headers["retry-after"] == "1"
    assert len(world.openai.requests) == 3, "nothing was sent"
    assert world.metric("serving_upstream_circuit", provider="openai", state="open") == 1
    assert (await world.complete("gemini")).status_code == 200, "the others are not affected"
    await asyncio.sleep(0.4)
    assert (await world.complete()).status_code == 502, "the probe"
    assert (await world.complete()).status_code == 503
    assert len(world.openai.requests) == 4
    await asyncio.sleep(0.4)
    world.openai.script = [Step(delay_s=0.1)]
    probe, other = await asyncio.gather(world.complete(), world.complete())
    assert sorted((probe.status_code, other.status_code)) == [200, 503], "one probe at a time"
    assert (await world.complete()).status_code == 200
    assert world.metric("serving_upstream_circuit", provider="openai", state="closed") == 1


async def test_client_errors_and_rate_limits_do_not_open_it(start: Start) -> None:
    world = await start(max_retries=0, breaker_failures=1)
    for status in (400, 404, 413, 422, 429, 401):
        world.openai.script = [Step(status)]
        assert (await world.complete()).status_code >= 400
    world.openai.script = [Step()]
    assert (await world.complete()).status_code == 200


async def test_clients_that_leave_do_not_open_it(start: Start, eventually: Eventually) -> None:
    world = await start(max_retries=0, breaker_failures=1)
    world.openai.script = [Step(delay_s=60)]
    body = {"model": "m-openai", "prompt": CANARY}
    _, writer = await open_request(world.site, "/v4/completions", body)
    await eventually(lambda: world.openai.requests)
    writer.close()
    await eventually(lambda: world.idle, 1)
    world.openai.script = [Step()]
    assert (await world.complete()).status_code == 200


async def test_streams_that_break_off_open_it(start: Start) -> None:
    world = await start(max_retries=0, breaker_failures=2)
    world.openai.script = [Step(breaks="cut")]
    for _ in range(2):
        assert "event: error" in (await world.complete(stream=True)).text
    assert (await world.complete()).status_code == 503


# a catalogue that changes


async def test_a_new_catalogue_keeps_what_has_not_changed(
    world: World, eventually: Eventually
) -> None:
    upstreams, catalogue = world.site.router.hosted, world.site.catalogue
    replicas, clients = dict(upstreams.replicas), dict(upstreams._clients)
    world.openai.script = [Step(words=("word ",) * 30, pace_s=0.02)]
    running = asyncio.create_task(world.complete(stream=True))
    await eventually(lambda: world.openai.requests)
    openai = catalogue.providers["openai"].model_copy(update={"timeout_s": 7.0})
    changed = catalogue.model_copy(
        update={
            "models": tuple(m for m in catalogue.models if m.id != "m-gemini"),
            "providers": {**catalogue.providers, "openai": openai},
        }
    )
    upstreams.update(changed)
    assert set(upstreams.replicas) == {"m-openai", "m-anthropic"}
    assert upstreams.replicas["m-anthropic"] is replicas["m-anthropic"]
    assert upstreams._clients["openai"] is not clients["openai"]
    assert text_of(await running) == "word " * 30, "what had begun ends"
    world.openai.script = [Step()]
    assert (await world.complete()).status_code == 200
    await eventually(lambda: clients["openai"]._connection.openai.is_closed())
    await eventually(lambda: clients["gemini"]._connection.openai.is_closed())
    gauge = "serving_upstream_circuit"
    assert world.metric(gauge, provider="openai", state="closed") == 1
    value = world.site.metrics.registry.get_sample_value
    assert value(gauge, {"provider": "gemini", "state": "closed"}) is None
