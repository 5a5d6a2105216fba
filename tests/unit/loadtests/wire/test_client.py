from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.clock import Clock
from loadtests.load.planned import Planned
from loadtests.measure.record import Outcome, Record
from loadtests.wire.client import Client, Exchange
from loadtests.wire.connection import Connection, Inbox
from loadtests.wire.service import Service
from tests.unit.loadtests.planned import planned, record
from tests.unit.loadtests.wire.servers import (
    END,
    LAST,
    STREAM,
    Answer,
    chunk,
    event,
    scripted,
    whole,
)


class Sender:
    """Sends requests and waits for their ends."""

    def __init__(self, url: str, timeout_s: float = 5.0, service: Service | None = None) -> None:
        self.clock = Clock(time.monotonic())
        self.client = Client(service or Service(url), self.clock, timeout_s)

    async def send(self, of: Planned) -> tuple[Record, str]:
        ended: asyncio.Future[tuple[Record, str]] = asyncio.get_running_loop().create_future()
        content = self.client.prepare(of)
        self.client.send(
            of, record(of), content, lambda *end: ended.set_result(end), keep_text=True
        )
        async with asyncio.timeout(10):
            return await ended


@contextlib.asynccontextmanager
async def sending(url: str, **more: Any) -> AsyncIterator[Sender]:
    sender = Sender(url, **more)
    try:
        yield sender
    finally:
        sender.client.close()


async def one(answer: Answer, of: Planned | None = None, **more: Any) -> tuple[Record, str]:
    async with scripted(answer) as server, sending(server.url, **more) as sender:
        return await sender.send(of or planned())


async def stream(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM + chunk(event("a")))
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.write(chunk(event("b")) + chunk(LAST) + END)


async def test_a_stream() -> None:
    found, text = await one(stream)
    assert (found.outcome, found.error, found.status) == (Outcome.OK, None, 200)
    assert (text, found.text_bytes, found.request_id) == ("ab", 2, "r-1")
    assert (found.usage_seen, found.prompt_tokens, found.completion_tokens) == (True, 3, 2)
    assert 0 < found.begun_s <= found.sent_s <= found.event_s[0] == found.first_s
    assert found.event_s[1] - found.event_s[0] >= 0.05
    assert found.end_s == found.event_s[1]


async def test_times_are_of_the_read_and_not_of_the_parsing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop is busy for 50 ms after it has read: the event keeps the time of the read."""
    parse = Inbox._parse
    reads: list[float] = []
    clocks: list[Clock] = []

    def late(inbox: Inbox) -> None:
        reads.append(clocks[0].now())
        time.sleep(0.05)
        parse(inbox)

    monkeypatch.setattr(Inbox, "_parse", late)
    async with scripted(stream) as server, sending(server.url) as sender:
        clocks.append(sender.clock)
        found, _ = await sender.send(planned())
    assert list(found.event_s) == sorted(found.event_s)
    assert all(at <= read for at, read in zip(found.event_s, reads, strict=True))


async def test_a_stream_that_comes_byte_by_byte() -> None:
    async def slowly(request: bytes, writer: asyncio.StreamWriter) -> None:
        for byte in STREAM + chunk(event("a")) + chunk(event("b")) + chunk(LAST) + END:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    found, text = await one(slowly)
    assert (found.outcome, text, len(found.event_s)) == (Outcome.OK, "ab", 2)


async def test_a_whole_answer() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            whole(
                b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": '
                b'{"prompt_tokens": 4, "completion_tokens": 1, '
                b'"prompt_tokens_details": {"cached_tokens": 2}}}'
            )
        )

    found, text = await one(answer, planned(endpoint="chat", stream=False))
    assert (found.outcome, text, found.first_s) == (Outcome.OK, "hi", None)
    assert (found.prompt_tokens, found.cached_tokens, found.completion_tokens) == (4, 2, 1)


async def test_connections_are_kept() -> None:
    async with scripted(stream) as server, sending(server.url) as sender:
        for _ in range(3):
            assert (await sender.send(planned()))[0].outcome is Outcome.OK
        assert (server.connections, sender.client.connections) == (1, 1)
        await asyncio.gather(*(sender.send(planned()) for _ in range(3)))
        assert server.connections == 3


async def test_a_connection_that_the_service_will_close_is_not_used_again() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            whole(b'{"completion": {"text": "x"}}').replace(
                b"\r\n", b"\r\nconnection: close\r\n", 1
            )
        )

    async with scripted(answer) as server, sending(server.url) as sender:
        for _ in range(2):
            assert (await sender.send(planned(stream=False)))[0].outcome is Outcome.OK
        assert server.connections == 2


async def test_an_old_connection_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.wire.client.IDLE_S", 0.0)
    async with scripted(stream) as server, sending(server.url) as sender:
        await sender.send(planned())
        await asyncio.sleep(0.01)
        await sender.send(planned())
        assert server.connections == 2


async def test_a_kept_connection_that_the_service_has_closed() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        await stream(request, writer)
        await writer.drain()
        writer.close()

    async with scripted(answer) as server, sending(server.url) as sender:
        for _ in range(2):
            assert (await sender.send(planned()))[0].outcome is Outcome.OK
            await asyncio.sleep(0.05)
        assert server.connections == 2


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


def breaks(*pieces: bytes) -> Answer:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    return answer


A = STREAM + chunk(event("a"))
ERROR_EVENT = chunk(b'event: error\ndata: {"error": {"code": "engine_died"}}\n\n')


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


async def nothing(request: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(20)


async def half(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(A)
    await asyncio.sleep(20)


async def test_timeouts() -> None:
    found, _ = await one(nothing, timeout_s=0.1)
    assert (found.outcome, found.error) == (Outcome.ERROR, "timeout before the answer")
    assert 0.09 <= found.end_s - found.begun_s < 2
    found, text = await one(half, timeout_s=0.1)
    assert (found.error, text, len(found.event_s)) == ("timeout in the answer", "a", 1)


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


async def test_references() -> None:
    right = planned(reference="ab")
    found, _ = await one(stream, right)
    assert (found.checked, found.wrong) == (True, False)
    found, _ = await one(stream, planned(reference="abc"))
    assert (found.checked, found.wrong) == (True, True)
    found, _ = await one(breaks(A), planned(reference="abc"))
    assert (found.checked, found.wrong) == (True, False)
    found, _ = await one(breaks(A), planned(reference="xbc"))
    assert (found.checked, found.wrong) == (True, True)
    found, _ = await one(breaks(), planned(reference="xbc"))
    assert (found.checked, found.wrong) == (False, False)


async def test_ipv6() -> None:
    async with scripted(stream, "::1") as server, sending(server.url) as sender:
        assert (await sender.send(planned()))[0].outcome is Outcome.OK
        assert b"host: [::1]:" in server.requests[0]


async def test_the_second_address_is_tried_when_the_first_refuses() -> None:
    async with scripted(stream) as server, sending(server.url) as sender:
        service = sender.client._service
        (good,) = await service.addresses()
        service.prefer((good[0], ("127.0.0.3", good[1][1])))
        for _ in range(2):
            assert (await sender.send(planned()))[0].outcome is Outcome.OK
        assert (await service.addresses())[0] == good


async def test_nothing_that_was_not_asked_for_is_read() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        await stream(request, writer)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with scripted(answer) as server, sending(server.url) as sender:
        assert (await sender.send(planned()))[0].outcome is Outcome.OK
        await asyncio.sleep(0.05)
        assert (await sender.send(planned()))[0].outcome is Outcome.OK
        assert server.connections == 2


async def test_an_interim_answer_is_nothing() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await stream(request, writer)

    assert (await one(answer))[0].outcome is Outcome.OK


async def test_abandoning_leaves_no_record() -> None:
    async with scripted(nothing) as server, sending(server.url) as sender:
        ended: list[object] = []
        of = planned()
        for _ in range(2):
            sender.client.send(
                of, record(of), sender.client.prepare(of), lambda *end: ended.append(end)
            )
        await asyncio.sleep(0.05)
        assert sender.client.abandon() == 2
        await asyncio.sleep(0.05)
        assert (ended, sender.client.in_flight) == ([], 0)


async def test_nothing_is_left_for_the_garbage_collector() -> None:
    """It is told to look seldom; what it would have to find would pile up."""

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if b"reset" in request:
            writer.transport.abort()
        elif b"hang" in request:
            await asyncio.sleep(20)
        else:
            await stream(request, writer)
            await writer.drain()
            writer.close()

    async with scripted(answer) as server, sending(server.url, timeout_s=0.2) as sender:
        gc.collect()
        gc.disable()
        try:
            await asyncio.gather(
                *(sender.send(planned(prompt=p)) for p in ("ok", "reset", "hang") * 5),
                sender.send(planned(cancel_after_tokens=1)),
                sender.send(planned(read_bytes_per_s=1e6)),
            )
            # Connections end a moment after their requests.
            async with asyncio.timeout(5):
                while any(isinstance(each, Connection | Exchange) for each in gc.get_objects()):
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A context of a server with a certificate that nobody trusts."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


async def test_https(certificate: ssl.SSLContext) -> None:
    async with scripted(stream, ssl=certificate) as server:
        async with sending(server.url) as sender:
            found, _ = await sender.send(planned())
            assert found.error == "connect: certificate"
        trusting = Service(server.url, verify=False)
        async with sending(server.url, service=trusting) as sender:
            for _ in range(2):
                found, text = await sender.send(planned())
                assert (found.outcome, text) == (Outcome.OK, "ab")
                assert found.begun_s <= found.sent_s <= (found.first_s or 0)
            assert sender.client.connections == 1
