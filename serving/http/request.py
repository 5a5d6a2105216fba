"""The little HTTP the raw ASGI app needs: headers, bodies with limits, whole responses.

ASGI: asgi.readthedocs.io/en/latest/specs/www.html. There is no framework on the token path.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from serving.errors import BodyTooLarge, ClientLeft, HeadersTooLarge, RequestTimeout

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Request:
    """One HTTP request on its way through a handler."""

    scope: Scope
    receive: Receive
    send: Send
    path: str
    id: str
    reply_headers: Headers
    headers: Mapping[bytes, bytes]


Handler = Callable[[Request], Awaitable[None]]


def read_headers(scope: Scope, limit: int) -> Mapping[bytes, bytes]:
    """The request's headers by lower-case name; the first one counts.

    Raises:
        HeadersTooLarge: names and values together have more than `limit` bytes.
    """
    headers: dict[bytes, bytes] = {}
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        headers.setdefault(name, value)
    if size > limit:
        raise HeadersTooLarge(f"the headers have {size} bytes; the limit is {limit}")
    return headers


def request_id(scope: Scope) -> str:
    """The caller's `x-request-id` if it is printable and short, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else uuid.uuid4().hex
    return uuid.uuid4().hex


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], *, limit: int, timeout_s: float
) -> bytes:
    """The request's whole body.

    Raises:
        BodyTooLarge: it has, or says it has, more than `limit` bytes.
        RequestTimeout: it did not arrive within `timeout_s`.
        ClientLeft: the connection closed first.
    """
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    deadline = asyncio.get_running_loop().time() + timeout_s
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await _receive(receive, deadline - asyncio.get_running_loop().time())
        part = bytes(message.get("body", b""))
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _receive(receive: Receive, timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            message = await receive()
    except TimeoutError:
        raise RequestTimeout("the request's body did not arrive in time") from None
    if message["type"] == "http.disconnect":
        raise ClientLeft("the client left before its request was complete")
    return message


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit} bytes")


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = b"application/json",
    headers: Headers | None = None,
) -> None:
    """Send a whole response."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", str(len(body)).encode()),
                *(headers or ()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, body: object, headers: Headers) -> None:
    """Send an object as JSON."""
    await respond(send, status, json.dumps(body).encode(), headers=headers)
