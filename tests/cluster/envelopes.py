"""The errors of each dialect, their envelopes checked."""

from __future__ import annotations

from typing import Any

import httpx


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a Create Completion, its envelope checked."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "detail"}
    assert set(body["error"]) == {"type", "code", "message", "param", "request_id"}
    assert body["error"]["code"] == code
    assert body["detail"] == body["error"]["message"]
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return dict(body["error"])


def openai_error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an OpenAI endpoint, its envelope checked."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    assert isinstance(body["error"]["message"], str)
    return dict(body["error"])
