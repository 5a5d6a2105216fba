"""What vLLM's app says when it refuses or fails, as one of our errors.

Its answers have a status and OpenAI's envelope; inside a stream it writes the envelope as an event,
also where nothing of the stream has been sent. As our errors they are told in our envelope with the
request's ID, and with the headers that say whether to try again.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from serving.errors import (
    EngineError,
    InvalidField,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServingError,
    is_refusal,
)

# How vLLM begins the event of a failure.
ERROR_EVENT = b'data: {"error"'
# vLLM repeats in some messages what it was sent.
MAX_MESSAGE = 1000
# vLLM's words for a request that the engine core ended with an error, and went on.
_ENDED_BY_CORE = "Internal server error"

_BY_STATUS: dict[int, type[ServingError]] = {
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidField,
    HTTPStatus.SERVICE_UNAVAILABLE: Overloaded,
}


def error_of_event(event: bytes, *, constrained: bool) -> ServingError:
    """What an event says that begins with `ERROR_EVENT`."""
    said, _, _ = event.removeprefix(b"data: ").partition(b"\n")
    error = _envelope(said)
    status = error.get("code")
    return _error(status if isinstance(status, int) else 500, error, constrained)


def error_of_response(status: int, body: bytes, *, constrained: bool) -> ServingError:
    """What an answer with a status of 400 or above says."""
    return _error(status, _envelope(body), constrained)


def _envelope(body: bytes) -> dict[str, Any]:
    """OpenAI's, or FastAPI's own (`{"detail": ...}`)."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError):
        return {}
    if not isinstance(said, dict):
        return {}
    error = said.get("error")
    return error if isinstance(error, dict) else {"message": said.get("detail")}


def _error(status: int, said: dict[str, Any], constrained: bool) -> ServingError:
    message, param = said.get("message"), said.get("param")
    message = message[:MAX_MESSAGE] if isinstance(message, str) else ""
    param = param if isinstance(param, str) else None
    if status >= 500 and constrained and message == _ENDED_BY_CORE:
        # The core ends a request of which its grammar takes no token. The other reasons that vLLM
        # has for this are of features that need a configuration of their own.
        return InvalidRequest(
            "the model cannot write an answer that fits the schema, pattern, choices or grammar of "
            "this request"
        )
    if is_refusal(status):
        kind = _BY_STATUS.get(status, InvalidRequest)
        return kind(message or "the engine refused this request", param=param)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Overloaded(message or "the queue of this replica is full")
    return EngineError(message or "the engine failed on this request")
