"""Errors as JSON: our envelope, and OpenAI's on `/v1`."""

from __future__ import annotations

import json
import math

from serving.errors import ServingError

# scale-gp ignores a `retry-after` above 60 s.
MAX_RETRY_AFTER_S = 60
# In seconds, for a 429 or 503 that names no wait.
DEFAULT_RETRY_AFTER_S = 1


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


def retry_headers(error: ServingError) -> list[tuple[bytes, bytes]]:
    """`x-should-retry: false` where a retry cannot help, an honest `retry-after` where it can."""
    if not error.retryable:
        return [(b"x-should-retry", b"false")]
    wait_s = error.retry_after_s
    if wait_s is None:
        if error.status not in (429, 503):
            return []
        wait_s = DEFAULT_RETRY_AFTER_S
    seconds = min(MAX_RETRY_AFTER_S, max(1, math.ceil(wait_s)))
    return [(b"retry-after", str(seconds).encode())]
