"""What the harness's client makes of answers that are right."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from pathlib import Path

import pytest

from loadtests.clock import Clock
from loadtests.measure.record import Outcome
from loadtests.wire.client import Exchange
from loadtests.wire.connection import Connection, Inbox
from loadtests.wire.service import Service
from tests.unit.loadtests.planned import planned, record
from tests.unit.loadtests.wire.sending import (
    A,
    breaks,
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
    whole,
)


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
