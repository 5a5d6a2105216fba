from __future__ import annotations

import json

import pytest

from serving.api.envelope import anthropic_error_body, error_body, openai_error_body, retry_headers
from serving.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    EngineFailed,
    Forbidden,
    InvalidField,
    InvalidRequest,
    MethodNotAllowed,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    ServingError,
    Unauthenticated,
    UnknownModel,
    UpstreamFailed,
)

ERROR = UnknownModel("unknown model 'x\u2028'", param="model")


def test_our_envelope() -> None:
    data = error_body(ERROR, "r1")
    assert data.isascii()
    assert json.loads(data) == {
        "error": {
            "type": "not_found_error",
            "code": "unknown_model",
            "message": "unknown model 'x\u2028'",
            "param": "model",
            "request_id": "r1",
        },
        "detail": "unknown model 'x\u2028'",
    }


def test_openais_envelope() -> None:
    error = json.loads(openai_error_body(ERROR, "r1"))["error"]
    assert error["type"] == "not_found_error"
    assert error["code"] == "unknown_model"
    assert error["param"] == "model"
    assert error["message"].startswith("unknown model")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("no"), "invalid_request_error"),
        (InvalidField("no", param="top_k"), "invalid_request_error"),
        (MethodNotAllowed("no"), "invalid_request_error"),
        (Unauthenticated("no"), "authentication_error"),
        (Forbidden("no"), "permission_error"),
        (UnknownModel("no"), "not_found_error"),
        (BodyTooLarge("no"), "request_too_large"),
        (RateLimited("no"), "rate_limit_error"),
        (ServingError("no"), "api_error"),
        (UpstreamFailed("no"), "api_error"),
        (Overloaded("no"), "overloaded_error"),
        (DeadlineExceeded("no"), "timeout_error"),
    ],
)
def test_anthropics_envelope(error: ServingError, kind: str) -> None:
    data = anthropic_error_body(error, "r1")
    assert data.isascii()
    assert json.loads(data) == {
        "type": "error",
        "error": {"type": kind, "message": "no"},
        "request_id": "r1",
    }


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (InvalidField("no"), [(b"x-should-retry", b"false")]),
        (ModelUnavailable("no", retry_after_s=5), [(b"retry-after", b"5")]),
        (ModelUnavailable("no", retry_after_s=0.01), [(b"retry-after", b"1")]),
        (ModelUnavailable("no", retry_after_s=2.1), [(b"retry-after", b"3")]),
        (ModelUnavailable("no", retry_after_s=3600), [(b"retry-after", b"60")]),
        (EngineFailed("no"), [(b"retry-after", b"1")]),
        (DeadlineExceeded("no"), []),
        (ServingError("no"), []),
    ],
)
def test_retry_headers(error: ServingError, headers: list[tuple[bytes, bytes]]) -> None:
    assert retry_headers(error) == headers
