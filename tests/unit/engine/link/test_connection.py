"""Who may connect, and connections that are lost or silent."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from serving.engine import link_server
from serving.engine.link import MAX_HELLO
from serving.observability.logs import Log
from serving.router import replica as router_replica
from serving.router.answer import AttemptFailed
from serving.router.replica import ReplicaLink
from serving.wire.frames import HEADER, Kind, frame, open_payload
from serving.wire.messages import Hello
from tests.conftest import Eventually
from tests.unit.engine.link.conftest import TOKEN, Pair, completion, read


@pytest.mark.parametrize("token", ["", "wrong", "secret"])
async def test_a_wrong_token_is_refused(pair: Pair, eventually: Eventually, token: str) -> None:
    right = pair.link()
    wrong = pair.link(token=token)
    await eventually(lambda: right.up)
    await eventually(lambda: wrong._delay_s > router_replica.RECONNECT_MIN_S)
    assert not wrong.connected
    with pytest.raises(AttemptFailed):
        wrong.open(completion())


async def test_a_refused_router_does_not_hammer_the_replica(
    pair: Pair, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_replica, "RECONNECT_MIN_S", 0.02)
    connections = 0
    made = ReplicaLink.connection_made

    def count(self: ReplicaLink, transport: asyncio.BaseTransport) -> None:
        nonlocal connections
        connections += 1
        made(self, transport)

    monkeypatch.setattr(ReplicaLink, "connection_made", count)
    wrong = pair.link(token="wrong")
    await eventually(lambda: wrong._delay_s > 0.2)
    assert 3 <= connections <= 10


@pytest.mark.parametrize(
    "data",
    [
        frame(Kind.OPEN, 1, open_payload(b"{}", b"")),
        frame(Kind.HELLO, 0, b"not json"),
        frame(Kind.HELLO, 0, b'{"router":"r","token":"\xff"}'),
        frame(Kind.HELLO, 0, b'{"router":"r","token":"\\ud800"}'),
        frame(Kind.HELLO, 0, msgspec.json.encode(Hello("r", TOKEN, version=99))),
        HEADER.pack(MAX_HELLO + 1, Kind.HELLO, 0),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_a_stranger_is_disconnected(pair: Pair, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
    writer.write(data)
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    writer.close()
    assert pair.server.in_flight == 0


async def test_a_second_hello_is_refused(pair: Pair) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
    writer.write(frame(Kind.HELLO, 0, msgspec.json.encode(Hello("r", TOKEN))) * 2)
    async with asyncio.timeout(2):
        await reader.read()  # it may have been welcomed first
    writer.close()


async def test_it_reconnects(pair: Pair, link: ReplicaLink, eventually: Eventually) -> None:
    await pair.server.close()
    await eventually(lambda: not link.connected)
    changes = pair.changes
    pair.server = pair.new_server()
    await pair.server.start("127.0.0.1", pair.port)
    await eventually(lambda: link.up)
    assert pair.changes == changes + 1
    answer = link.open(completion())
    await read(answer)
    assert answer.end is not None


async def test_a_silent_replica_is_given_up(
    log: Log, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_replica, "SILENCE_S", 0.15)
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = ReplicaLink(
        "x",
        "127.0.0.1",
        port,
        router="r",
        token="",
        log=log,
        on_change=lambda: None,
        on_adapter=lambda *_: None,
    )
    await eventually(lambda: connections >= 2)
    await link.close()
    server.close()


async def test_another_replica_at_the_same_address_gets_nothing(
    pair: Pair, eventually: Eventually
) -> None:
    stale = pair.link(replica="dead#1")
    right = pair.link()
    await eventually(lambda: right.up)
    await eventually(lambda: stale._delay_s > router_replica.RECONNECT_MIN_S)  # it was refused
    assert not stale.up
    with pytest.raises(AttemptFailed):
        stale.open(completion())


async def test_a_router_that_slept_itself_blames_no_replica(
    pair: Pair, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what the replica said meanwhile nothing has been read when the router wakes up."""
    monkeypatch.setattr(link_server, "HEARTBEAT_S", 60.0)
    monkeypatch.setattr(router_replica, "SILENCE_S", 0.9)
    pair.engine.interval_s = 60
    link = pair.link()
    await eventually(lambda: link.up)
    answer = link.open(completion())
    await eventually(lambda: link.load.in_flight)
    time.sleep(1.2)
    await asyncio.sleep(0.05)
    assert link.up
    assert answer.failed is None
