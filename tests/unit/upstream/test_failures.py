from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from serving.errors import (
    BodyTooLarge,
    ContextLengthExceeded,
    InvalidRequest,
    Overloaded,
    RateLimited,
    ServingError,
    UpstreamFailed,
    UpstreamMisconfigured,
)
from serving.upstream.failures import Explainer, Failure

KEY = "a-key-of-no-known-form"
REQUEST = httpx2.Request("POST", "https://acme.test")


def failure(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Failure:
    response = httpx2.Response(status, headers=headers or {}, request=REQUEST)
    error = openai.APIStatusError("message", response=response, body=body)
    return Explainer("acme", 3.0).failure(error, "theirs", KEY)


@pytest.mark.parametrize(
    ("status", "error", "retry", "trips"),
    [
        (400, InvalidRequest, False, False),
        (401, UpstreamMisconfigured, False, False),
        (402, UpstreamMisconfigured, False, False),
        (403, UpstreamMisconfigured, False, False),
        (404, UpstreamMisconfigured, False, False),
        (408, UpstreamFailed, True, False),
        (409, UpstreamFailed, True, False),
        (413, BodyTooLarge, False, False),
        (422, InvalidRequest, False, False),
        (429, RateLimited, True, False),
        (500, UpstreamFailed, True, True),
        (502, UpstreamFailed, True, True),
        (503, Overloaded, True, True),
        (529, Overloaded, True, True),
        (301, UpstreamFailed, True, True),
    ],
)
def test_statuses(status: int, error: type[ServingError], retry: bool, trips: bool) -> None:
    found = failure(status)
    assert type(found.error) is error
    assert (found.retry, found.trips) == (retry, trips)
    assert "acme" in found.error.message


def test_a_provider_that_says_not_to_retry_is_believed() -> None:
    assert not failure(500, headers={"x-should-retry": "false"}).retry
    assert not failure(400, headers={"x-should-retry": "true"}).retry


@pytest.mark.parametrize(
    "body",
    [
        {"message": "too hot", "type": "invalid_request_error", "param": "temperature"},
        {"error": {"message": "too hot", "param": "temperature"}},
        [{"error": {"message": "too hot", "param": "temperature", "code": 400}}],
        {"type": "error", "error": {"message": "too hot", "param": "temperature"}},
    ],
)
def test_the_message_is_found_in_every_dialect(body: Any) -> None:
    error = failure(400, body).error
    assert error.message == "provider 'acme' refused the request: too hot"
    assert error.param == "temperature"


@pytest.mark.parametrize(
    "body",
    [None, "", "<html>", [], {}, {"error": None}, {"error": "text"}, {"message": 5, "code": []},
     {"details": [1, {"reason": 3}], "param": 1}, 7],
)  # fmt: skip
def test_a_body_of_no_form_says_nothing(body: Any) -> None:
    assert failure(400, body).error.message == "provider 'acme' refused the request"


def test_keys_are_taken_out() -> None:
    said = f"{KEY}, sk-proj-abc***xyz, AIzaSyAbcdefgh, Bearer tok and sk-ip"
    message = failure(400, {"message": said}).error.message
    assert message.endswith("[key], [key], [key], [key] and sk-ip")
    assert len(failure(400, {"message": "x" * 9999}).error.message) < 600


def test_a_spent_quota_is_for_the_operator_to_mend() -> None:
    assert not failure(429, {"code": "insufficient_quota"}).retry
    details = {"error_code": "enforced_spend_limit_reached"}
    assert not failure(429, {"type": "rate_limit_error", "details": details}).retry


def test_the_context() -> None:
    assert isinstance(
        failure(400, {"code": "context_length_exceeded"}).error, ContextLengthExceeded
    )
    body = {"message": "prompt is too long: 209000 tokens > 200000 maximum"}
    assert isinstance(failure(400, body).error, ContextLengthExceeded)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, Overloaded),
        ({"type": "rate_limit_error"}, RateLimited),
        ({"type": "server_error"}, UpstreamFailed),
        ([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], RateLimited),
        ({"code": 400, "message": "no"}, InvalidRequest),
        ("what", UpstreamFailed),
    ],
)
def test_errors_inside_a_stream(body: Any, error: type[ServingError]) -> None:
    assert type(Explainer("acme", 3.0).event(body, "theirs", KEY).error) is error


def test_no_answer_at_all() -> None:
    explain = Explainer("acme", 3.0)
    for error, result in (
        (openai.APITimeoutError(REQUEST), "timeout"),
        (openai.APIConnectionError(request=REQUEST), "connection"),
        (httpx2.ReadError("x"), "connection"),
        (ValueError("x"), "no_answer"),
        (openai.OpenAIError("x"), "no_answer"),
    ):
        found = explain.failure(error, "theirs", KEY)
        assert (found.result, found.retry, found.trips) == (result, True, True)
