"""Anthropic's dialect at the router: its errors, its keepalives, its headers.

What an engine answers is in `tests/cluster/test_messages.py`, the SDK in
`tests/e2e/test_anthropic_sdk.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from serving.engine.interface import Reply, Tally
from serving.errors import EngineError, EngineFailed, InvalidRequest, ServingError
from serving.wire.messages import SSE_HEAD, Head, HttpCall
from tests.gateway.conftest import Open, Site, events

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
BODY: dict[str, Any] = {"model": "latest", "max_tokens": 3, "messages": []}


def error_of(response: httpx.Response, status: int, kind: str) -> str:
    """The message of an error that has the shape Anthropic's SDKs read."""
    assert response.status_code == status, response.text
    said = response.json()
    identity = response.headers["request-id"]
    assert identity == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    message = said.get("error", {}).pop("message", None)
    assert said == {"type": "error", "error": {"type": kind}, "request_id": identity}
    assert isinstance(message, str)
    return message


class Answers:
    """Takes the place of an engine's `http`: waits, writes the parts, and fails with `error`."""

    def __init__(
        self,
        *parts: bytes,
        error: ServingError | None = None,
        head: Head,
        wait_s: float = 0.0,
        then_s: float = 0.0,
    ) -> None:
        self.parts, self.error, self.head = parts, error, head
        self.wait_s, self.then_s = wait_s, then_s

    async def __call__(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        await asyncio.sleep(self.wait_s)
        for part in self.parts:
            reply.head(self.head)
            reply.data(part)
            await asyncio.sleep(self.then_s)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize("model", ["echo", "latest", "echo.pirate"])
async def test_a_request_reaches_the_engine_with_its_adapter(
    site: Site, path: str, model: str
) -> None:
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
    response = await site.client.post(
        path + "?beta=true", json={**BODY, "model": model}, headers=headers
    )
    assert response.status_code == 200
    assert response.json()["model"] == model
    assert response.headers["request-id"] == response.headers["x-request-id"]
    (call,) = site.engines[0].calls
    assert isinstance(call, HttpCall)
    assert (call.path, call.model, bool(call.adapter)) == (path, model, model != "echo")
    assert not any(name.startswith("anthropic") for name, _ in call.headers)
    assert site.counted(endpoint=path, outcome="ok") == site.counted() == 1


@pytest.mark.parametrize("key", [{"x-api-key": "sk-any"}, {"authorization": "Bearer sk-any"}])
async def test_both_ways_to_send_a_key(site: Site, key: dict[str, str]) -> None:
    site.client.headers.pop("x-api-key")
    response = await site.client.post(MESSAGES, json=BODY, headers=key)
    assert response.status_code == 200


async def test_without_a_key(site: Site) -> None:
    site.client.headers.pop("x-api-key")
    message = error_of(await site.client.post(MESSAGES, json=BODY), 401, "authentication_error")
    assert "x-api-key" in message


@pytest.mark.parametrize(
    ("content", "status", "kind", "said"),
    [
        (b"{", 400, "invalid_request_error", "not valid JSON"),
        (b"[]", 400, "invalid_request_error", "JSON object"),
        (b"{}", 422, "invalid_request_error", "'model' is required"),
        (b'{"model": "echo", "stream": 1}', 422, "invalid_request_error", "'stream'"),
        (b'{"model": "ecko"}', 404, "not_found_error", "unknown model 'ecko'"),
        (b'{"model": "\xff"}', 400, "invalid_request_error", "not valid JSON"),
    ],
)
async def test_refusals_are_in_the_dialect(
    site: Site, content: bytes, status: int, kind: str, said: str
) -> None:
    response = await site.client.post(MESSAGES, content=content)
    assert said in error_of(response, status, kind)
    assert response.headers["x-should-retry"] == "false"
    assert site.counted(endpoint=MESSAGES, outcome="rejected") == site.counted() == 1


async def test_neighbours_are_refused_in_the_dialect_too(site: Site) -> None:
    batches = await site.client.post("/v1/messages/batches", json={})
    error_of(batches, 404, "not_found_error")
    got = await site.client.get(MESSAGES)
    assert "takes POST" in error_of(got, 405, "invalid_request_error")
    assert "request-id" not in (await site.client.get("/v1/nothing")).headers


async def test_without_a_replica(open_site: Open) -> None:
    site = await open_site(replicas=0, hold_s=0)
    response = await site.client.post(MESSAGES, json=BODY)
    error_of(response, 503, "overloaded_error")
    assert "retry-after" in response.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_engine_refuses(
    site: Site, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    refuses = Answers(error=InvalidRequest("no tools here"), head=SSE_HEAD)
    monkeypatch.setattr(site.engines[0], "http", refuses)
    response = await site.client.post(MESSAGES, json={**BODY, "stream": stream})
    assert error_of(response, 400, "invalid_request_error") == "no tools here"
    assert site.counted(outcome="rejected") == site.counted() == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [(EngineError("broken"), "api_error"), (EngineFailed("dead"), "overloaded_error")],
)
async def test_a_failure_after_the_first_byte_is_an_event(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: ServingError, kind: str
) -> None:
    begun = b'event: message_start\ndata: {"type": "message_start"}\n\n'
    monkeypatch.setattr(
        site.engines[0], "http", Answers(begun, error=error, then_s=0.2, head=SSE_HEAD)
    )
    response = await site.client.post(MESSAGES, json={**BODY, "stream": True})
    assert response.status_code == 200
    first, (name, said) = events(response.text)
    assert first == ("message_start", {"type": "message_start"})
    assert name == "error"
    assert said == {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": response.headers["request-id"],
    }
    assert site.counted(outcome="error") == site.counted() == 1


async def test_a_silent_stream_gets_pings(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    site = await open_site(keepalive_s=0.05)
    stop = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
    monkeypatch.setattr(site.engines[0], "http", Answers(stop, wait_s=0.3, head=SSE_HEAD))
    response = await site.client.post(MESSAGES, json={**BODY, "stream": True})
    *pings, last = events(response.text)
    assert set(map(repr, pings)) == {repr(("ping", {"type": "ping"}))}
    assert last[0] == "message_stop"
    assert ": keepalive" not in response.text


def _late(error: ServingError | None, *parts: bytes, status: int = 200) -> Answers:
    head = Head(status, (("content-type", "application/json"),))
    return Answers(*parts, error=error, wait_s=0.2, head=head)


REFUSED = b'{"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}'


@pytest.mark.parametrize(
    "answers",
    [lambda: _late(InvalidRequest("no")), lambda: _late(None, REFUSED, status=400)],
    ids=["raised", "written"],
)
async def test_a_refusal_after_a_ping_is_an_event_of_the_dialect(
    open_site: Open, monkeypatch: pytest.MonkeyPatch, answers: Callable[[], Answers]
) -> None:
    site = await open_site(keepalive_s=0.05)
    monkeypatch.setattr(site.engines[0], "http", answers())
    response = await site.client.post(MESSAGES, json={**BODY, "stream": True})
    assert response.status_code == 200
    *_, (name, said) = events(response.text)
    assert (name, said["type"]) == ("error", "error")
    assert said["error"] == {"type": "invalid_request_error", "message": "no"}
    assert site.counted(outcome="rejected") == site.counted() == 1


@pytest.mark.parametrize("path", [COUNT, "/tokenize"])
async def test_what_does_not_stream_gets_no_keepalive(
    open_site: Open, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Whatever its body says: a keepalive would make a stream of it."""
    site = await open_site(keepalive_s=0.05)
    monkeypatch.setattr(site.engines[0], "http", _late(None, b'{"input_tokens": 3}'))
    response = await site.client.post(path, json={**BODY, "stream": True})
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"input_tokens": 3}


OTHERS = {
    "providers": {"p": {"dialect": "openai", "base_url": "http://p", "api_key_env": "P_KEY"}},
    "models": [
        {"kind": "engine", "id": "old", "weights": "w", "context": 99, "runtime": "transformers"},
        {"kind": "engine", "id": "vector", "weights": "w", "context": 99, "task": "embed"},
        {"kind": "upstream", "id": "hosted", "provider": "p", "model": "theirs"},
    ],
}


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize(
    ("model", "asks"),
    [("old", "/v1/chat/completions"), ("vector", "/v1/embeddings"), ("hosted", "/v4/completions")],
)
async def test_a_model_that_has_no_messages_says_what_it_has(
    open_site: Open, path: str, model: str, asks: str
) -> None:
    site = await open_site(hosted=OTHERS)
    response = await site.client.post(path, json={**BODY, "model": model})
    message = error_of(response, 422, "invalid_request_error")
    assert f"model '{model}' does not answer at {path}; ask it at" in message
    assert asks in message
    assert "/v1/messages," not in message
    assert site.counted(endpoint=path, outcome="rejected") == site.counted() == 1
