"""Bodies that are sent from a router's disk, beside all else that a link carries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tracemalloc

import msgspec
import pytest

from serving.engine.interface import Reply, Tally
from serving.engine.link import Link
from serving.router.replica import ReplicaLink
from serving.wire.body import PIECE_BYTES
from serving.wire.fingerprint import fingerprint
from serving.wire.frames import FrameReader, Kind, frame, open_payload, split_open
from serving.wire.messages import JSON_HEAD, HttpCall, Load, Welcome
from tests.conftest import Eventually
from tests.unit.engine.link.conftest import Pair, completion, read
from tests.unit.engine.link.test_cancel import Wire

CALL = HttpCall("r1", "m", "POST", "/v1/audio/transcriptions")


class Kept:
    """A body as if it were on disk; `lost` makes reading it fail."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.lost = False

    def __len__(self) -> int:
        return len(self.content)

    def read(self, at: int, size: int) -> bytes:
        if self.lost:
            raise OSError("gone")
        return self.content[at : at + size]


@pytest.fixture
def heard(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that reach the engine, whole."""
    bodies: list[bytes] = []

    async def http(call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        bodies.append(body)
        reply.head(JSON_HEAD)
        reply.data(b"{}")

    monkeypatch.setattr(pair.engine, "http", http)
    return bodies


@pytest.mark.parametrize("size", [1, PIECE_BYTES, 5 * PIECE_BYTES + 7])
async def test_a_body_comes_whole(link: ReplicaLink, heard: list[bytes], size: int) -> None:
    sent = os.urandom(size)
    assert await read(link.open(CALL, Kept(sent))) == b"{}"
    assert heard == [sent]


async def test_bodies_at_once_do_not_mix(link: ReplicaLink, heard: list[bytes]) -> None:
    sent = [os.urandom(3 * PIECE_BYTES + number) for number in range(9)]
    answers = [link.open(CALL, Kept(content)) for content in sent]
    await asyncio.gather(*map(read, answers))
    assert sorted(heard) == sorted(sent)


def test_a_body_on_disk_is_known_again() -> None:
    """The engine server has it in memory when it says what its engine died of."""
    sent = os.urandom(2 * PIECE_BYTES + 7)
    assert fingerprint(CALL, Kept(sent)) == fingerprint(CALL, sent)


class Silent:
    """A replica that says who it is and reads nothing more, until it is told to."""

    def __init__(self, *, takes_parts: bool = True) -> None:
        self._takes_parts = takes_parts
        self.may_read = asyncio.Event()
        self.frames: list[tuple[int, int, bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        welcome = Welcome("m#1", "m", 10, Load(), takes_parts=self._takes_parts)
        writer.write(frame(Kind.WELCOME, 0, msgspec.json.encode(welcome)))
        await self.may_read.wait()
        frames = FrameReader()
        while data := await reader.read(1 << 16):
            self.frames += frames.feed(data)
        writer.close()

    @property
    def kinds(self) -> list[int]:
        return [kind for kind, _, _ in self.frames]


async def silent_link(
    pair: Pair, replica: Silent, eventually: Eventually
) -> tuple[asyncio.Server, ReplicaLink]:
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    pair.port = server.sockets[0].getsockname()[1]
    link = pair.link()
    await eventually(lambda: link.up)
    return server, link


async def test_a_slow_replica_costs_a_few_pieces_of_memory(
    pair: Pair, eventually: Eventually
) -> None:
    replica = Silent()
    server, link = await silent_link(pair, replica, eventually)
    bodies = [Kept(bytes(40 * PIECE_BYTES)) for _ in range(4)]
    for body in bodies:
        link.open(CALL, body)
    transport = link._transport
    assert transport is not None
    await eventually(lambda: not link._uploads._writable.is_set())
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert transport.get_write_buffer_size() < 4 * PIECE_BYTES
    # What is asked meanwhile has a piece before it, and not all that is to be sent.
    link.open(completion())
    replica.may_read.set()
    await eventually(lambda: replica.kinds.count(Kind.OPEN) == 5)
    first = replica.kinds.index(Kind.OPEN)
    assert b"one two three" in replica.frames[first][2]
    assert replica.kinds[first:].count(Kind.PART) > 100
    server.close()


async def test_a_replica_of_an_older_version_gets_it_in_one_frame(
    pair: Pair, eventually: Eventually
) -> None:
    replica = Silent(takes_parts=False)
    replica.may_read.set()
    server, link = await silent_link(pair, replica, eventually)
    sent = os.urandom(3 * PIECE_BYTES)
    link.open(CALL, Kept(sent))
    await eventually(lambda: Kind.OPEN in replica.kinds)
    assert replica.kinds == [Kind.HELLO, Kind.OPEN]
    assert split_open(replica.frames[1][2])[1] == sent
    server.close()


async def test_a_body_that_is_given_up_leaves_nothing(pair: Pair, eventually: Eventually) -> None:
    wire = await Wire.open(pair.port)
    wire.writer.write(frame(Kind.PART, 1, b"x" * 1000))
    await eventually(lambda: pair.server.in_flight == 1)
    wire.writer.write(frame(Kind.CANCEL, 1))
    assert (await wire.last()).prompt_tokens == 0
    assert pair.server.in_flight == 0
    wire.writer.write(frame(Kind.PART, 2, b"x" * 1000))
    await eventually(lambda: pair.server.in_flight == 1)
    wire.writer.close()
    await eventually(lambda: pair.server.in_flight == 0)


async def test_a_call_that_is_cancelled_while_its_body_is_sent(
    link: ReplicaLink, pair: Pair, heard: list[bytes], eventually: Eventually
) -> None:
    answer = link.open(CALL, Kept(bytes(PIECE_BYTES * 100)))
    await eventually(lambda: pair.server.in_flight)
    answer.abandon()
    assert await answer.used(5) is not None
    await eventually(lambda: pair.server.in_flight == 0)
    assert not heard
    assert not link._uploads._tasks
    assert await read(link.open(CALL, Kept(b"x"))) == b"{}"


async def test_a_body_that_is_lost_fails_its_call_alone(
    link: ReplicaLink, pair: Pair, heard: list[bytes], eventually: Eventually
) -> None:
    body = Kept(bytes(PIECE_BYTES))
    body.lost = True
    answer = link.open(CALL, body)
    await read(answer)
    assert answer.failed is not None
    assert (answer.failed.error.status, answer.failed.retryable) == (500, False)
    await eventually(lambda: pair.server.in_flight == 0)
    assert await read(link.open(CALL, Kept(b"x"))) == b"{}"


async def test_a_body_without_an_end_closes_the_link(pair: Pair) -> None:
    wire = await Wire.open(pair.port)
    for _ in range(65):
        wire.writer.write(frame(Kind.PART, 1, bytes(1 << 20)))
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            while await wire._reader.read(1 << 16):
                pass
    assert pair.server.in_flight == 0


async def test_a_body_is_not_copied_when_its_call_is_opened(
    pair: Pair, heard: list[bytes], eventually: Eventually
) -> None:
    """The OPENs of many come in one read, and nothing else gets a turn until all are dealt with."""
    link = Link(pair.server)
    opening = open_payload(msgspec.json.encode(CALL), b"")
    tracemalloc.start()
    try:
        for _ in range(8):
            link._on_part(1, bytes(1 << 20))
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        link._on_open(1, opening)
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < 1 << 20
    finally:
        tracemalloc.stop()
    await eventually(lambda: heard)
    assert heard == [bytes(8 << 20)]
