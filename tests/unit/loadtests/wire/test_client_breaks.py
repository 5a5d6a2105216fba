"""What the harness's client makes of refusals, and of answers that break or never come."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from loadtests.measure.record import Outcome
from tests.unit.loadtests.planned import planned
from tests.unit.loadtests.wire.sending import (
    ERROR_EVENT,
    A,
    breaks,
    half,
    nothing,
    one,
    sending,
)
from tests.unit.loadtests.wire.servers import (
    END,
    LAST,
    chunk,
    event,
    whole,
)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("429 Too Many Requests", Outcome.REJECTED),
        ("503 Service Unavailable", Outcome.REJECTED),
        ("500 Internal Server Error", Outcome.ERROR),
        ("404 Not Found", Outcome.ERROR),
    ],
)
async def test_refusals(status: str, outcome: Outcome) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b'{"error": {"code": "why", "message": "request 17"}}', status))

    found, _ = await one(answer)
    assert (found.outcome, found.error) == (outcome, f"{status[:3]} why")
    assert found.request_id == "r-1"


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((), "closed before the answer"),
        ((b"HTTP/1.1 200 OK\r\n",), "closed before the answer"),
        ((A,), "truncated"),
        ((A, chunk(b"data: {")), "truncated"),
        ((A + END,), "truncated"),
        ((A, ERROR_EVENT), "error event: engine_died"),
        ((A + ERROR_EVENT + END,), "error event: engine_died"),
        ((b"SSH-2.0-OpenSSH\r\n",), "not HTTP"),
        ((A + chunk(b"data: {\n\n") + chunk(LAST) + END,), "unreadable event"),
        ((whole(b'{"completion": {"text": "x"}}'),), "not a stream"),
    ],
)
async def test_streams_that_break(pieces: tuple[bytes, ...], error: str) -> None:
    found, _ = await one(breaks(*pieces))
    assert (found.outcome, found.error) == (Outcome.ERROR, error)
    assert found.end_s >= found.sent_s > 0


async def test_whole_answers_that_break() -> None:
    cut = whole(b'{"completion": {"text": "x"}}')[:-5]
    found, _ = await one(breaks(cut), planned(stream=False))
    assert (found.outcome, found.error) == (Outcome.ERROR, "truncated")
    found, _ = await one(breaks(whole(b"<html>")), planned(stream=False))
    assert found.error == "unreadable answer"


async def test_a_body_that_ends_with_its_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    found, text = await one(breaks(head + event("a"), event("b") + LAST))
    assert (found.outcome, text) == (Outcome.OK, "ab")
    found, _ = await one(breaks(head + event("a")))
    assert (found.outcome, found.error) == (Outcome.ERROR, "truncated")


async def test_a_reset() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(A)
        await writer.drain()
        await asyncio.sleep(0.05)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    found, text = await one(answer)
    assert (found.outcome, found.error, text) == (Outcome.ERROR, "reset in the answer", "a")


async def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    async with sending(url) as sender:
        found, _ = await sender.send(planned())
        assert (found.outcome, found.error) == (Outcome.ERROR, "connect: refused")
        assert (found.status, sender.client.limited) == (0, 0)


async def test_unknown_name() -> None:
    async with sending("http://nowhere.invalid") as sender:
        found, _ = await sender.send(planned())
        assert found.error == "connect: unknown name"


async def test_a_limit_of_the_client_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sending("http://127.0.0.1:9") as sender:
        await sender.client._service.addresses()

        def full(*args: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("loadtests.wire.client.socket.socket", full)
        found, _ = await sender.send(planned())
        monkeypatch.undo()
        assert (found.error, sender.client.limited) == ("client: too many open files", 1)


async def test_timeouts() -> None:
    found, _ = await one(nothing, timeout_s=0.1)
    assert (found.outcome, found.error) == (Outcome.ERROR, "timeout before the answer")
    assert 0.09 <= found.end_s - found.begun_s < 2
    found, text = await one(half, timeout_s=0.1)
    assert (found.error, text, len(found.event_s)) == ("timeout in the answer", "a", 1)
