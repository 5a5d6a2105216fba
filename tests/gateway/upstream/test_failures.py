"""Refusals and failures of a provider, before the first byte and after it."""

from __future__ import annotations

import time

import pytest

from tests.gateway.conftest import events
from tests.gateway.upstream.conftest import DIALECTS, TEXT, Start, World, text_of
from tests.providers import Step, error_body

# before the first byte


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


# after the first byte


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
