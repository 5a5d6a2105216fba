"""Calls that are cancelled, or whose router is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from serving.router import replica as router_replica
from serving.router.replica import ReplicaLink
from serving.wire.frames import FrameReader, Kind, frame, open_payload
from serving.wire.messages import Call, End, Fail, Hello, HttpCall
from tests.conftest import Eventually
from tests.unit.engine.link.conftest import ENDLESS, TOKEN, Pair, completion


async def test_cancel_frees_the_engine(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 60
    answer = link.open(completion())
    await eventually(lambda: pair.engine.running == 1)
    answer.abandon()
    assert link.in_flight == 0
    await eventually(lambda: pair.engine.running == 0)
    await eventually(lambda: pair.server.in_flight == 0)
    assert pair.ended == ["cancelled"]
    answer.abandon()


async def test_an_abandoned_answer_gets_the_last_word_and_nothing_else(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 0.01
    answer = link.open(completion("one two three " * 300))
    await eventually(lambda: answer.ready)
    answer.take()
    answer.abandon()
    used = await answer.used(5)
    assert used is not None
    assert (used.prompt_tokens, 1 <= used.completion_tokens < 900) == (900, True)
    assert answer.take() == b""
    assert not link._closing


async def test_a_last_word_is_not_waited_for_for_long(
    pair: Pair, link: ReplicaLink, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_replica, "CLOSING_S", 0.1)
    stuck = asyncio.Event()

    async def step() -> None:
        """Does not let itself be cancelled."""
        while not stuck.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await stuck.wait()

    monkeypatch.setattr(pair.engine, "_step", step)
    answer = link.open(completion())
    await eventually(lambda: pair.engine.running == 1)
    answer.abandon()
    assert await answer.used(0.05) is None
    await eventually(lambda: not link._closing)
    stuck.set()  # its last word comes now, and nobody waits for it
    await eventually(lambda: pair.server.in_flight == 0)
    assert link.up
    assert await answer.used(0.05) is None


async def test_a_replica_that_dies_has_no_last_word(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 60
    answer = link.open(completion())
    await eventually(lambda: pair.engine.running == 1)
    answer.abandon()
    await pair.server.close()
    assert await answer.used(5) is None
    assert answer.failed is not None


async def test_a_call_cancelled_before_its_first_step_is_taken_off_the_books(
    pair: Pair, eventually: Eventually
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", pair.port)
    call = open_payload(msgspec.json.encode(completion()), b"")
    hello = msgspec.json.encode(Hello("r", TOKEN))
    writer.write(frame(Kind.HELLO, 0, hello) + frame(Kind.OPEN, 1, call) + frame(Kind.CANCEL, 1))
    await eventually(lambda: pair.ended == ["cancelled"])
    assert pair.server.in_flight == 0
    writer.close()


class Wire:
    """A router's end of a link that only writes and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._frames = FrameReader()

    @classmethod
    async def open(cls, port: int) -> Wire:
        wire = cls(*await asyncio.open_connection("127.0.0.1", port))
        wire.writer.write(frame(Kind.HELLO, 0, msgspec.json.encode(Hello("r", TOKEN))))
        return wire

    def ask(self, call: Call, body: bytes = b"") -> None:
        payload = open_payload(msgspec.json.encode(call), body)
        self.writer.write(frame(Kind.OPEN, 1, payload))

    async def until(self, *kinds: Kind) -> tuple[int, bytes]:
        """The first of these frames."""
        async with asyncio.timeout(5):
            while True:
                for kind, _, payload in self._frames.feed(await self._reader.read(1 << 16)):
                    if kind in kinds:
                        return kind, payload

    async def last(self) -> End | Fail:
        kind, payload = await self.until(Kind.END, Kind.FAIL)
        return msgspec.json.decode(payload, type=End if kind == Kind.END else Fail)

    async def nothing_more(self) -> bool:
        """Whether the next second brings load reports only."""
        try:
            async with asyncio.timeout(1):
                await self.until(Kind.HEAD, Kind.DATA, Kind.END, Kind.FAIL)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def wire(pair: Pair) -> AsyncIterator[Wire]:
    wire = await Wire.open(pair.port)
    yield wire
    wire.writer.close()


HTTP = HttpCall("r1", "m", "POST", "/v1/completions")


async def test_a_cancelled_stream_ends_with_what_it_has_used(pair: Pair, wire: Wire) -> None:
    pair.engine.interval_s = 0.001
    wire.ask(completion(ENDLESS))
    await wire.until(Kind.DATA)
    wire.writer.write(frame(Kind.CANCEL, 1))
    end = await wire.last()
    assert isinstance(end, End)
    assert (end.finish_reason, end.prompt_tokens, end.queue_s) == (None, 900, 0.0)
    assert 1 <= end.completion_tokens < 900
    assert pair.ended == ["cancelled"]
    assert await wire.nothing_more()


async def test_a_cancelled_whole_answer_and_a_cancelled_http_call_say_it_too(
    pair: Pair, wire: Wire, eventually: Eventually
) -> None:
    pair.engine.interval_s = 0.001
    wire.ask(completion(ENDLESS, stream=False))
    await eventually(lambda: pair.engine.running)
    await asyncio.sleep(0.05)
    wire.writer.write(frame(Kind.CANCEL, 1))
    end = await wire.last()
    assert end.prompt_tokens == 900
    assert 1 <= end.completion_tokens < 900
    pair.engine.interval_s = 0.2
    wire.ask(HTTP, b'{"stream": true}')
    await wire.until(Kind.DATA)
    wire.writer.write(frame(Kind.CANCEL, 1))
    assert await wire.last() == End(prompt_tokens=1, completion_tokens=1)


@pytest.mark.parametrize("call", [completion(), HTTP])
async def test_open_and_cancel_at_once_get_one_end(pair: Pair, wire: Wire, call: Call) -> None:
    pair.engine.interval_s = 60
    payload = open_payload(msgspec.json.encode(call), b"{}")
    wire.writer.write(frame(Kind.OPEN, 1, payload) + frame(Kind.CANCEL, 1))
    end = await wire.last()
    assert isinstance(end, End)
    assert (end.finish_reason, end.completion_tokens) == (None, 0)
    assert await wire.nothing_more()
    assert (pair.ended, pair.server.in_flight) == (["cancelled"], 0)


async def test_a_cancel_after_the_end_says_nothing(pair: Pair, wire: Wire) -> None:
    wire.ask(completion())
    assert (await wire.last()).completion_tokens == 3
    wire.writer.write(frame(Kind.CANCEL, 1))
    assert await wire.nothing_more()
    assert pair.ended == ["ok"]


async def test_a_router_that_vanishes_frees_the_engine(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 60
    link.open(completion())
    await eventually(lambda: pair.engine.running == 1)
    await link.close()
    await eventually(lambda: pair.engine.running == 0 and pair.server.in_flight == 0)
