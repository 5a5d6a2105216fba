"""Clients of the harness that leave, read slowly, or send much."""

from __future__ import annotations

import asyncio
import socket

from loadtests.measure.record import Outcome
from tests.unit.loadtests.planned import planned
from tests.unit.loadtests.wire.sending import (
    nothing,
    one,
    sending,
    stream,
)
from tests.unit.loadtests.wire.servers import (
    END,
    LAST,
    STREAM,
    chunk,
    event,
    scripted,
)


async def many(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM)
    for _ in range(400):
        writer.write(chunk(event("a")))
        await writer.drain()
        await asyncio.sleep(0.005)
    writer.write(chunk(LAST) + END)


async def test_a_client_that_leaves_after_some_tokens() -> None:
    gone = asyncio.Event()

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            await many(request, writer)
        except ConnectionError:
            gone.set()
            raise

    async with scripted(answer) as server, sending(server.url) as sender:
        found, _ = await sender.send(planned(cancel_after_tokens=3))
        assert (found.outcome, found.error) == (Outcome.CANCELLED, None)
        assert 3 <= len(found.event_s) < 200
        await asyncio.wait_for(gone.wait(), 5)
        assert sender.client.in_flight == 0


async def test_a_client_that_leaves_after_some_time() -> None:
    found, _ = await one(many, planned(cancel_after_s=0.1))
    assert found.outcome is Outcome.CANCELLED
    assert found.end_s - found.begun_s >= 0.099
    found, _ = await one(nothing, planned(cancel_after_s=0.1))
    assert (found.outcome, found.first_s) == (Outcome.CANCELLED, None)


async def test_an_answer_that_is_over_before_its_client_leaves() -> None:
    found, _ = await one(stream, planned(cancel_after_tokens=3, cancel_after_s=5.0))
    assert found.outcome is Outcome.OK


async def test_a_slow_reader_makes_the_sender_wait() -> None:
    """The service could not hand its bytes over: the window was full."""
    taken = 0
    size = 2_000_000

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writer.transport.set_write_buffer_limits(0)
        writer.write(STREAM)
        for _ in range(size // 1000):
            writer.write(chunk(event("a" * 900)))
            await writer.drain()
            taken += 1000

    slow = planned(read_bytes_per_s=50_000.0, cancel_after_s=0.6)
    async with scripted(answer) as server, sending(server.url) as sender:
        found, text = await sender.send(slow)
    assert found.outcome is Outcome.CANCELLED
    # What it read, and what fits into the kernel's buffers between them.
    assert 5_000 < len(text) < 100_000
    assert taken < 500_000


async def test_a_slow_reader_reads_all_in_the_end() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for _ in range(30):
            writer.write(chunk(event("a" * 900)))
        writer.write(chunk(LAST) + END)

    found, text = await one(answer, planned(read_bytes_per_s=60_000.0))
    assert (found.outcome, len(text)) == (Outcome.OK, 27_000)
    assert found.end_s - found.begun_s > 0.3


async def test_a_large_request_is_sent_when_the_kernel_has_all_of_it() -> None:
    async with sending("http://127.0.0.1:9") as sender:
        pass
    began = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)  # reads nothing yet: the kernel's buffers fill
        began.set()
        await reader.readuntil(b"\r\n\r\n")
        while len(await reader.read(1 << 20)) == 1 << 20 or not reader.at_eof():
            if reader._buffer.endswith(b"}"):  # type: ignore[attr-defined]
                break
            await asyncio.sleep(0)

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with sending(url, timeout_s=1.0) as sender:
        found, _ = await sender.send(planned(prompt="word " * 4_000_000))
    listener.close()
    assert began.is_set()
    assert found.sent_s - found.begun_s > 0.15
