"""Errors as JSON: our envelope, OpenAI's on `/v1`, and Anthropic's on `/v1/messages`."""

from __future__ import annotations

import json
import math

from serving.errors import ServingError

# scale-gp ignores a `retry-after` above 60 s.
MAX_RETRY_AFTER_S = 60
# In seconds, for a 429 or 503 that names no wait.
DEFAULT_RETRY_AFTER_S = 1

# Anthropic's types of error by status (docs.anthropic.com/en/api/errors). Others are of the kind
# that the status's first digit says. Ours has 503 where Anthropic's own service has 529.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    410: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: ServingError, request_id: str) -> bytes:
    """The error envelope of Create Completion. `detail` is a string because scale-egp's
    exception breaks on a list (FastAPI's default)."""
    return json.dumps(
        {
            "error": {
                "type": error.type,
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "request_id": request_id,
            },
            "detail": error.message,
        }
    ).encode()


def openai_error_body(error: ServingError, request_id: str) -> bytes:
    """OpenAI's error envelope."""
    return json.dumps(
        {
            "error": {
                "message": error.message,
                "type": error.type,
                "param": error.param,
                "code": error.code,
                "request_id": request_id,
            }
        }
    ).encode()


def anthropic_error_body(error: ServingError, request_id: str) -> bytes:
    """Anthropic's error envelope. Its SDKs tell errors apart by status, so it has no code."""
    kind = _ANTHROPIC_TYPES.get(error.status)
    if kind is None:
        kind = "invalid_request_error" if error.status < 500 else "api_error"
    return json.dumps(
        {
            "type": "error",
            "error": {"type": kind, "message": error.message},
            "request_id": request_id,
        }
    ).encode()


def retry_headers(error: ServingError) -> list[tuple[bytes, bytes]]:
    """`x-should-retry: false` where a retry cannot help, an honest `retry-after` where it can; both
    where it can only much later."""
    wait_s = error.retry_after_s
    if error.retryable:
        if wait_s is None and error.status in (429, 503):
            wait_s = DEFAULT_RETRY_AFTER_S
        if wait_s is not None:
            wait_s = min(MAX_RETRY_AFTER_S, max(1, wait_s))
    headers = [] if error.retryable else [(b"x-should-retry", b"false")]
    if wait_s is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(wait_s)))
    return headers
