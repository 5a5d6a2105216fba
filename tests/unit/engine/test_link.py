"""Both ends of a link over loopback TCP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.interface import Emit, Tally
from serving.engine.link import MAX_HELLO, LinkServer
from serving.errors import ContextLengthExceeded, EngineFailed, Overloaded
from serving.observability.logs import Log
from serving.router import answer as router_answer
from serving.router import replica as router_replica
from serving.router.answer import Answer, AttemptFailed
from serving.router.replica import ReplicaLink
from serving.wire.frames import HEADER, FrameReader, Kind, frame, open_payload
from serving.wire.messages import (
    AdapterRef,
    Call,
    CompletionCall,
    End,
    Fail,
    Hello,
    HttpCall,
    Load,
    Sampling,
)
from tests.conftest import Eventually

TOKEN = "sécret"


def completion(prompt: str = "one two three", **fields: Any) -> CompletionCall:
    values = {"request_id": "r1", "model": "m", "stream": True, "sampling": Sampling()}
    return CompletionCall(prompt=prompt, served_model="m", **{**values, **fields})


async def read(answer: Answer) -> bytes:
    """Everything up to the answer's end or failure."""
    data = b""
    async with asyncio.timeout(5):
        while answer.end is None and answer.failed is None:
            if not answer.ready:
                await answer.wait()
            data += answer.take()
    return data + answer.take()


class Pair:
    """One engine server and the links that a test opens to it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.links: list[ReplicaLink] = []
        self.changes = 0
        self.held: list[tuple[ReplicaLink, str, bool]] = []
        self.ended: list[str] = []
        self.engine = EchoEngine(
            EngineSpec(id="m", weights="w", context=1000, engine_args={"interval_s": 0.0})
        )
        self.server = self.new_server()
        self.port = 0

    def new_server(self) -> LinkServer:
        def on_call_end(outcome: str) -> None:
            self.ended.append(outcome)

        return LinkServer(
            self.engine,
            replica="m#1",
            model="m",
            token=TOKEN,
            log=self.log,
            on_call_end=on_call_end,
        )

    def link(self, token: str = TOKEN, router: str = "r", replica: str = "m#1") -> ReplicaLink:
        def changed() -> None:
            self.changes += 1

        link = ReplicaLink(
            replica,
            "127.0.0.1",
            self.port,
            router=router,
            token=token,
            log=self.log,
            on_change=changed,
            on_adapter=lambda *change: self.held.append(change),
        )
        self.links.append(link)
        return link


@pytest.fixture
async def pair(log: Log) -> AsyncIterator[Pair]:
    pair = Pair(log)
    pair.port = await pair.server.start("127.0.0.1")
    yield pair
    for link in pair.links:
        await link.close()
    await pair.server.close()


@pytest.fixture
async def link(pair: Pair, eventually: Eventually) -> ReplicaLink:
    link = pair.link()
    await eventually(lambda: link.up)
    return link


async def test_an_answer(pair: Pair, link: ReplicaLink) -> None:
    answer = link.open(completion())
    data = await read(answer)
    assert data.count(b"data: ") == 4
    assert answer.head is not None
    assert answer.head.status == 200
    assert answer.end == End("stop", 3, 3, 0.0)
    assert link.in_flight == pair.server.in_flight == pair.engine.running == 0
    assert pair.ended == ["ok"]


async def test_an_http_call_and_its_body(link: ReplicaLink) -> None:
    body = b'{"x": "' + b"y" * 300_000 + b'"}'
    answer = link.open(HttpCall("r1", "m", "POST", "/v1/completions"), body)
    assert msgspec.json.decode(await read(answer)) == {"model": "m", "bytes": len(body)}


async def test_many_answers_at_once_do_not_mix(link: ReplicaLink) -> None:
    answers = [link.open(completion(f"n{number} " * 20)) for number in range(50)]
    for number, data in enumerate(await asyncio.gather(*map(read, answers))):
        assert data.count(b"n%d " % number) == 20
        assert data.count(b'"text":"n') == 20


async def test_welcome_tells_who_is_there(link: ReplicaLink) -> None:
    assert link.welcome is not None
    assert (link.welcome.replica, link.welcome.max_model_len) == ("m#1", 1000)


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


ENDLESS = "word " * 900
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


async def test_a_failure_says_what_was_used(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 0.01
    answer = link.open(completion(ENDLESS))
    await eventually(lambda: answer.head is not None)
    pair.engine.dead = True
    await read(answer)
    assert answer.failed is not None
    assert answer.failed.used.prompt_tokens == 900
    assert 1 <= answer.failed.used.completion_tokens < 900


async def test_a_bug_says_what_was_used(
    pair: Pair, link: ReplicaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(call: CompletionCall, emit: Emit, tally: Tally) -> None:
        tally.prompt_tokens, tally.completion_tokens = 7, 4
        raise KeyError("secret")

    monkeypatch.setattr(pair.engine, "generate", broken)
    await read(answer := link.open(completion()))
    assert answer.failed is not None
    assert answer.failed.used == End(prompt_tokens=7, completion_tokens=4)


def test_a_failure_of_a_neighbouring_version_says_nothing_of_usage() -> None:
    fail = msgspec.json.decode(b'{"status":503,"code":"x","message":"y"}', type=Fail)
    assert (fail.prompt_tokens, fail.completion_tokens) == (0, 0)


async def test_a_router_that_vanishes_frees_the_engine(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 60
    link.open(completion())
    await eventually(lambda: pair.engine.running == 1)
    await link.close()
    await eventually(lambda: pair.engine.running == 0 and pair.server.in_flight == 0)


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


async def test_a_replicas_death_fails_its_answers(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    """Retryable: whether their callers have seen anything, the relay knows."""
    pair.engine.interval_s = 60
    answer = link.open(completion("word " * 900))
    await eventually(lambda: pair.engine.running)
    await pair.server.close()
    await read(answer)
    assert answer.failed is not None
    assert isinstance(answer.failed.error, EngineFailed)
    assert answer.failed.retryable
    assert not link.up


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


async def test_an_error_keeps_its_class_param_and_retry_time(
    pair: Pair, link: ReplicaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = link.open(completion("word " * 1000))
    await read(answer)
    assert answer.failed is not None
    assert isinstance(answer.failed.error, ContextLengthExceeded)
    assert answer.failed.error.param == "prompt"
    assert not answer.failed.retryable

    async def full() -> None:
        raise Overloaded("full", retry_after_s=5)

    monkeypatch.setattr(pair.engine, "check", full)
    answer = link.open(completion())
    await read(answer)
    assert answer.failed is not None
    assert isinstance(answer.failed.error, Overloaded)
    assert answer.failed.error.retry_after_s == 5
    assert answer.failed.retryable


async def test_a_bug_in_one_call_ends_only_that_call(
    pair: Pair, link: ReplicaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = link.open(HttpCall("r1", "m", "POST", "/v1/completions"), b"not json")
    await read(answer)
    assert answer.failed is not None
    assert answer.failed.error.status == 500
    assert "json" not in answer.failed.error.message
    await read(again := link.open(completion()))
    assert again.end is not None


async def test_a_call_that_cannot_be_written_leaves_nothing_behind(link: ReplicaLink) -> None:
    with pytest.raises(UnicodeEncodeError):
        link.open(completion("\ud800"))
    assert link.in_flight == 0


async def test_load_reports_tell_ours_from_others(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    other = pair.link(router="other")
    await eventually(lambda: other.up)
    pair.engine.interval_s = 60
    ours = [link.open(completion(adapter=AdapterRef("a", "/w"))) for _ in range(2)]
    theirs = [other.open(completion()) for _ in range(3)]
    assert link.busy == 2
    assert pair.held == [(link, "a", True)], "known before any report, and once"
    await eventually(lambda: link.busy == other.busy == 5)
    await eventually(lambda: link.load.running == 5)
    assert link.load == Load(5, 2, 5, 0, ("a",), routers=2)
    assert (link.others, other.others) == (3, 2)
    for answer in ours + theirs:
        answer.abandon()
    await eventually(lambda: link.busy == other.busy == 0)


async def test_a_draining_replica_finishes_but_takes_nothing_new(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 0.02
    answer = link.open(completion())
    await eventually(lambda: pair.engine.running == 1)
    changes = pair.changes
    drain = asyncio.create_task(pair.server.drain(5))
    await eventually(lambda: not link.up)
    assert link.connected
    assert pair.changes == changes + 1
    with pytest.raises(AttemptFailed) as caught:
        link.open(completion())
    assert caught.value.retryable
    assert (await read(answer)).count(b"data: ") == 4
    assert answer.end is not None
    await drain


async def test_a_drain_does_not_wait_forever(pair: Pair, link: ReplicaLink) -> None:
    pair.engine.interval_s = 60
    link.open(completion())
    async with asyncio.timeout(2):
        await pair.server.drain(0.1)


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


async def test_an_answer_nobody_reads_is_given_up(
    pair: Pair, link: ReplicaLink, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_answer, "MAX_UNREAD", 10_000)
    pair.engine.interval_s, pair.engine.repeat = 0.001, 900
    answer = link.open(completion("x" * 100))
    await eventually(lambda: answer.failed)
    assert answer.failed is not None
    assert not answer.failed.retryable
    assert link.in_flight == 0
    await eventually(lambda: pair.server.in_flight == 0)


async def test_a_call_that_is_not_understood_ends_only_itself(
    pair: Pair, link: ReplicaLink
) -> None:
    other = link.open(completion())
    strange = Answer(link, 77)
    link._streams[77] = strange
    link._outbox.send(Kind.OPEN, 77, open_payload(b'{"type": "from the future"}', b""))
    await read(strange)
    assert strange.failed is not None
    assert strange.failed.error.status == 500
    await read(other)
    assert other.end is not None
    assert link.up


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


async def test_what_a_late_report_cannot_know_is_assumed_of_the_others_too(
    pair: Pair, link: ReplicaLink, eventually: Eventually
) -> None:
    pair.engine.interval_s = 60
    other = pair.link(router="other")
    await eventually(lambda: other.up and link.load.routers == 2)
    for _ in range(3):
        link.open(completion())
    assert link.busy == 6  # three of ours, and as many that the other may have added
    await eventually(lambda: link.load.yours == 3)
    assert link.busy == 3  # the report is in: the other has none


async def test_a_server_that_closes_stops_reporting_whatever_happens_at_that_moment(
    log: Log,
) -> None:
    before = asyncio.all_tasks()
    server = Pair(log).new_server()
    await server.start("127.0.0.1")
    (reporter,) = asyncio.all_tasks() - before
    await asyncio.sleep(0.05)
    server.changed()
    await server.close()
    await asyncio.wait([reporter], timeout=0.5)
    assert reporter.cancelled()


async def test_a_router_that_slept_itself_blames_no_replica(
    pair: Pair, link: ReplicaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_replica, "SILENCE_S", 0.3)
    await asyncio.sleep(1.1)  # the watch takes the new time over
    answer = link.open(completion("one two three"))
    await answer.wait()
    time.sleep(0.8)
    await asyncio.sleep(0.05)
    assert link.up
    assert b"three" in await read(answer)
    assert answer.failed is None
