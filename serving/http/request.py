"""An HTTP request as the service sees it, and the little HTTP that a raw ASGI app needs.

ASGI: asgi.readthedocs.io/en/latest/specs/www.html. There is no framework on the token path.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from serving.errors import BodyTooLarge, ClientLeft, HeadersTooLarge, RequestTimeout
from serving.http.encodings import Decoding, coding_of, decoded
from serving.http.spool import Spool
from serving.wire.body import PIECE_BYTES

# Our listener's extension of ASGI's scope: a function that writes the next part of a body that
# `send` has begun, or returns False if that has to wait for the client. Unlike `send`, which is a
# coroutine, it can be called outside a task.
WRITE = "serving.write"

_CODINGS = b"content-encoding"
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Request:
    """One HTTP request. `reply_headers` go with its response, whoever writes it; `name` is the
    model ID in its path, if there is one."""

    scope: Scope
    receive: Receive
    send: Send
    id: str
    path: str
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    reply_headers: Headers = field(default_factory=list)
    name: str = ""

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> Request:
        """The request of an ASGI scope; its headers are read later, by `read_headers`."""
        identity = request_id(scope)
        path = scope["path"][len(scope.get("root_path", "")) :]
        return cls(
            scope,
            receive,
            send,
            identity,
            path,
            reply_headers=[(b"x-request-id", identity.encode())],
        )

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def query(self) -> bytes:
        return bytes(self.scope["query_string"])

    @property
    def write(self) -> Callable[[bytes], bool] | None:
        """The listener's `WRITE` function, or None if the listener has none."""
        found: Callable[[bytes], bool] | None = self.scope.get("extensions", {}).get(WRITE)
        return found

    def read_headers(self, limit: int) -> None:
        """Fill `headers`, by lower-case name; of headers with the same name the first counts, but
        codings are applied one after the other, whether they stand in one header or in several
        (RFC 9110, section 8.4).

        Raises:
            HeadersTooLarge: names and values together have more than `limit` bytes.
        """
        headers: dict[bytes, bytes] = {}
        size = 0
        for name, value in self.scope["headers"]:
            size += len(name) + len(value)
            if name == _CODINGS and name in headers:
                value = headers.pop(name) + b", " + value
            headers.setdefault(name, value)
        if size > limit:
            raise HeadersTooLarge(f"the headers have {size} bytes; the limit is {limit}")
        self.headers = headers

    async def read_body(self, *, limit: int, timeout_s: float) -> bytes:
        """The whole body, as it was before the client compressed it, if it did.

        Raises:
            UnsupportedEncoding, InvalidRequest: as `encodings.decoded`.
            BodyTooLarge: it has, or says it has, more than `limit` bytes, or has when decoded.
            RequestTimeout: it did not arrive within `timeout_s`.
            ClientLeft: the connection closed first.
            ServingError: what the listener finds wrong with it.
        """
        self._check_length(limit)
        deadline = asyncio.get_running_loop().time() + timeout_s
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            part, more = await self._next_part(deadline, limit - size)
            if part is None:
                raise _too_large(limit)
            size += len(part)
            parts.append(part)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        encoding = self.headers.get(_CODINGS)
        return body if encoding is None else await decoded(body, encoding, limit)

    async def spool_body(
        self,
        spool: Spool,
        take: Callable[[bytes], Awaitable[None]],
        *,
        limit: int,
        timeout_s: float,
    ) -> None:
        """Read the body into `spool`, and show `take` each piece of it as it comes.

        Raises: as `read_body`, and what `take` raises.
            Overloaded: there is no room for it, or the disk failed.
        """
        self._check_length(limit)
        coding = coding_of(self.headers.get(_CODINGS, b""))
        decoding = Decoding(coding, limit) if coding else None
        deadline = asyncio.get_running_loop().time() + timeout_s
        size = 0
        more = True
        while more:
            data, more = await self._next_part(deadline, limit - size)
            if data is None:
                raise _too_large(limit)
            size += len(data)
            if decoding is None:
                await take(data)
                await spool.write(data)
                continue
            parts = decoding.feed(data, PIECE_BYTES)
            while part := await asyncio.to_thread(next, parts, b""):
                await take(part)
                await spool.write(part)
        if decoding is not None:
            decoding.close()

    async def start(self, status: int, headers: Headers) -> None:
        """Send a response's head: `headers`, then the request's `reply_headers`."""
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": headers + self.reply_headers,
            }
        )

    async def respond(
        self, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        """Send a whole response."""
        length = str(len(body)).encode()
        fixed = [(b"content-type", content_type), (b"content-length", length)]
        await self.start(status, fixed + headers)
        await self.send({"type": "http.response.body", "body": body})

    def _check_length(self, limit: int) -> None:
        """
        Raises:
            BodyTooLarge: the client says so.
        """
        length = self.headers.get(b"content-length", b"").lstrip(b"0")
        # Python refuses to make numbers of thousands of digits.
        if length.isdigit() and (len(length) > len(str(limit)) or int(length) > limit):
            raise _too_large(limit)

    async def _next_part(self, deadline: float, room: int) -> tuple[bytes | None, bool]:
        """The next part of the body, None if it has more than `room` bytes, and whether more
        follows. `deadline` is by the loop's clock."""
        message = await self._receive(deadline - asyncio.get_running_loop().time())
        part = bytes(message.get("body", b""))
        return (part if len(part) <= room else None), message.get("more_body", False)

    async def _receive(self, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                message = await self.receive()
        except TimeoutError:
            raise RequestTimeout("the request's body did not arrive in time") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft("the client left before its request was complete")
        return message


def key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The API key of a request, by `x-api-key`, `api-key` (Azure's way) or `Authorization: Bearer`;
    empty if there is none."""
    key = headers.get(b"x-api-key")
    if key is None:
        key = headers.get(b"api-key")
    return bearer(headers) if key is None else key


def bearer(headers: Mapping[bytes, bytes]) -> bytes:
    """The token of `Authorization: Bearer TOKEN`; empty if there is none."""
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else b""


def request_id(scope: Scope) -> str:
    """The caller's `x-request-id` if it is printable and short, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else uuid.uuid4().hex
    return uuid.uuid4().hex


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit} bytes")
