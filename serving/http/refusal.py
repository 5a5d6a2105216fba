"""The start of every response, and the whole of one to bytes that are no request."""

from __future__ import annotations

import uuid
from http import HTTPStatus

from serving.api.envelope import error_body, retry_headers
from serving.errors import ServingError
from serving.http.request import Headers


def _line(status: int, phrase: str) -> bytes:
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_LINES = {status.value: _line(status.value, status.phrase) for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """The first line of a response."""
    return _LINES.get(status) or _line(status, "")


def refusal(error: ServingError, default_headers: Headers) -> bytes:
    """The response that ends a connection: `error` in the API's envelope, under a new ID."""
    identity = uuid.uuid4().hex
    body = error_body(error, identity)
    headers = [
        *default_headers,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", identity.encode()),
        *retry_headers(error),
        (b"connection", b"close"),
    ]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return status_line(error.status) + lines + b"\r\n" + body
