"""How the response of a relay is written: by the server at once, or by the request's task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from serving.http.request import WRITE, Request
from serving.router.record import Record
from serving.router.response import Response


class Client:
    """A client that reads or does not, and what it has received."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.bodies: list[bytes] = []

    def response(self, write: Callable[[bytes], bool] | None) -> Response:
        scope = {"extensions": {WRITE: write}}
        request = Request(scope, self.receive, self.send, "r", "/")
        return Response(request, Record("r", "/"), keepalive_s=10)

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        self.bodies.append(message["body"])

    def write(self, data: bytes) -> bool:
        if self.reads.is_set():
            self.bodies.append(data)
        return self.reads.is_set()


@pytest.fixture
async def client() -> Client:
    return Client()


@pytest.fixture
async def response(client: Client) -> AsyncIterator[Response]:
    response = client.response(client.write)
    yield response
    response.close()


async def test_a_client_that_reads_needs_no_task(client: Client, response: Response) -> None:
    assert response.forward(b"a", 1.0)
    assert response.forward(b"b", 2.0)
    assert client.bodies == [b"a", b"b"]
    assert response.last_sent == 2.0


async def test_what_cannot_be_written_at_once_is_not_taken(
    client: Client, response: Response
) -> None:
    client.reads.clear()
    assert not response.forward(b"a", 1.0)
    assert client.bodies == []


async def test_nothing_overtakes_a_send_that_waits(client: Client, response: Response) -> None:
    client.reads.clear()
    sending = asyncio.create_task(response.body(b"a", more=True))
    await asyncio.sleep(0)
    client.write = lambda data: pytest.fail("overtaken")  # type: ignore[method-assign]
    assert not response.forward(b"b", 1.0)
    client.reads.set()
    await sending
    assert client.bodies == [b"a"]


async def test_a_server_without_write_gets_everything_by_send(client: Client) -> None:
    response = client.response(None)
    assert not response.forward(b"a", 1.0)
    response.close()
