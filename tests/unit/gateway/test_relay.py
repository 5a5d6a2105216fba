"""How bytes get from a link to a client without a task in between, and what then may go wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.gateway.record import Record
from serving.gateway.relay import _Response


class Client:
    """The ASGI `send` of a client that reads, or does not."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.bodies: list[bytes] = []
        self.failure: Exception | None = None

    async def send(self, message: Any) -> None:
        await self._may_write()
        if self.failure:
            raise self.failure
        self.bodies.append(message["body"])

    async def _may_write(self) -> None:
        if not self.reads.is_set():
            await self.reads.wait()


@pytest.fixture
async def client() -> Client:
    return Client()


@pytest.fixture
async def response(client: Client) -> _Response:
    return _Response(client.send, [], Record("r", "/"))


async def test_a_client_that_reads_needs_no_task(client: Client, response: _Response) -> None:
    assert response.forward(b"a", 1.0)
    assert response.forward(b"b", 2.0)
    assert client.bodies == [b"a", b"b"]
    assert response.rest is None
    assert response.last_sent == 2.0


async def test_a_send_that_waits_is_finished_by_the_task(
    client: Client, response: _Response
) -> None:
    client.reads.clear()
    assert response.forward(b"a", 1.0), "it has taken it, though it waits"
    assert response.rest is not None
    assert response.blocked_since == 1.0
    assert not response.forward(b"b", 2.0), "one at a time, in order"
    settling = asyncio.create_task(response.settle())
    await asyncio.sleep(0.01)
    assert client.bodies == []
    client.reads.set()
    await asyncio.wait_for(settling, 1)
    assert client.bodies == [b"a"]
    assert response.rest is None
    assert response.forward(b"b", 3.0)
    assert client.bodies == [b"a", b"b"]


async def test_a_send_that_waits_can_be_cancelled(client: Client, response: _Response) -> None:
    client.reads.clear()
    response.forward(b"a", 1.0)
    settling = asyncio.create_task(response.settle())
    await asyncio.sleep(0.01)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    client.reads.set()
    await asyncio.sleep(0.01)
    assert client.bodies == []


async def test_a_send_that_waits_and_then_fails(client: Client, response: _Response) -> None:
    client.reads.clear()
    response.forward(b"a", 1.0)
    client.failure = ConnectionResetError()
    client.reads.set()
    with pytest.raises(ConnectionResetError):
        await response.settle()


async def test_a_failing_send_is_the_tasks_business(client: Client, response: _Response) -> None:
    client.failure = OSError("gone")
    assert response.forward(b"a", 1.0)
    assert response.rest is not None
    with pytest.raises(OSError, match="gone"):
        await response.settle()
