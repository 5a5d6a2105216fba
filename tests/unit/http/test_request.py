from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from serving.errors import BodyTooLarge, ClientLeft, HeadersTooLarge, RequestTimeout
from serving.http.request import Request, request_id


class Client:
    """ASGI's `receive`: the given messages, then silence."""

    def __init__(self, *messages: dict[str, Any], pause_s: float = 0.0) -> None:
        self.messages = list(messages)
        self.pause_s = pause_s

    async def __call__(self) -> dict[str, Any]:
        await asyncio.sleep(self.pause_s)
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


LEFT = {"type": "http.disconnect"}


async def read(client: Client, length: bytes | None = None, timeout_s: float = 5.0) -> bytes:
    headers = {} if length is None else {b"content-length": length}
    request = Request({}, client, nothing, "r1", "/", headers)
    return await request.read_body(limit=10, timeout_s=timeout_s)


async def nothing(message: Any) -> None:
    """ASGI's `send` of a request that is not answered."""


async def test_bodies() -> None:
    assert await read(Client(part(b"abc"))) == b"abc"
    assert await read(Client({"type": "http.request"})) == b""
    assert await read(Client(part(b"ab", more=True), part(b"", more=True), part(b"c"))) == b"abc"
    assert await read(Client(part(b"x" * 10)), b"10") == b"x" * 10


@pytest.mark.parametrize(
    ("client", "length"),
    [
        (Client(), b"11"),
        (Client(part(b"x" * 11)), None),
        (Client(part(b"x" * 11, more=True)), None),
        (Client(part(b"x" * 6, more=True), part(b"x" * 5, more=True)), None),
        (Client(part(b"x" * 11)), b"3"),
        (Client(part(b"x" * 11)), b"nonsense"),
    ],
)
async def test_a_body_too_large(client: Client, length: bytes | None) -> None:
    with pytest.raises(BodyTooLarge, match="10 bytes"):
        await read(client, length)


@pytest.mark.parametrize("parts", [0, 1, 1000])
async def test_a_body_too_slow(parts: int) -> None:
    client = Client(*[part(b"", more=True)] * parts, pause_s=0.01)
    started = time.monotonic()
    with pytest.raises(RequestTimeout):
        await read(client, timeout_s=0.05)
    assert time.monotonic() - started < 1


async def test_the_first_part_counts_against_the_time() -> None:
    client = Client(part(b"", more=True), part(b""), pause_s=0.2)
    with pytest.raises(RequestTimeout):
        await read(client, timeout_s=0.3)


@pytest.mark.parametrize("client", [Client(LEFT), Client(part(b"a", more=True), LEFT)])
async def test_a_client_that_leaves(client: Client) -> None:
    with pytest.raises(ClientLeft):
        await read(client)


def test_headers() -> None:
    scope = {"headers": [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], "path": "/"}
    request = Request.of(scope, Client(), nothing)
    request.read_headers(6)
    assert request.headers == {b"a": b"1", b"b": b"2"}
    with pytest.raises(HeadersTooLarge, match="6 bytes; the limit is 5"):
        request.read_headers(5)


def test_the_callers_request_id_is_kept() -> None:
    assert request_id({"headers": [(b"x-request-id", b"abc-1/~")]}) == "abc-1/~"
    assert request_id({"headers": [(b"x-request-id", b"x" * 128)]}) == "x" * 128


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"\xc3\xa9", b"a\nb", b"a\n", b"\x7f"])
def test_a_hostile_request_id_is_replaced(value: bytes) -> None:
    found = request_id({"headers": [(b"x-request-id", value)]})
    assert len(found) == 32
    assert found != request_id({"headers": []})


async def test_a_response() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    request = Request({}, Client(), send, "r1", "/", reply_headers=[(b"x-request-id", b"r1")])
    await request.respond(418, '{"a": "é"}'.encode(), b"application/json", [])
    start, body = sent
    assert start["status"] == 418
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"x-request-id"] == b"r1"
    assert not body.get("more_body")
