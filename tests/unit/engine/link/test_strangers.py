"""Connections that show no token are closed, and neither many nor silent ones keep a router out."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
import pytest

from serving.engine import link_server, strangers
from serving.wire.frames import HEADER, Kind, frame
from serving.wire.messages import Hello
from tests.conftest import Eventually
from tests.unit.engine.link.conftest import TOKEN, Pair


async def test_silence_is_disconnected(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "HELLO_S", 0.2)
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
    writer.write(HEADER.pack(100, Kind.HELLO, 0))  # and never the rest
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    assert 0.15 < time.monotonic() - began < 1
    writer.close()


async def test_a_router_is_silent_as_long_as_it_likes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(strangers, "HELLO_S", 0.1)
    link = pair.link()
    await eventually(lambda: link.up)
    await asyncio.sleep(0.3)
    assert link.up


async def test_many_strangers_keep_no_router_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(strangers, "MAX_STRANGERS", 5)
    silent = [await asyncio.open_connection("127.0.0.1", pair.port) for _ in range(12)]
    link = pair.link()
    await eventually(lambda: link.up)
    await eventually(lambda: sum(reader.at_eof() for reader, _ in silent) >= 7)
    assert len(pair.server.strangers) <= 5
    for _, writer in silent:
        writer.close()
    await eventually(lambda: not pair.server.strangers)
    assert link.up


async def test_links_are_bounded(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(link_server, "MAX_LINKS", 2)
    links = [pair.link(router=f"r{number}") for number in range(2)]
    await eventually(lambda: all(link.up for link in links))
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
    writer.write(frame(Kind.HELLO, 0, msgspec.json.encode(Hello("r3", TOKEN))))
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    writer.close()
    assert all(link.up for link in links)


async def test_strangers_do_not_fill_the_log(pair: Pair) -> None:
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    logger = logging.getLogger("serving.test")
    logger.addHandler(handler)
    wrong = frame(Kind.HELLO, 0, msgspec.json.encode(Hello("r", "wrong")))
    try:
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
            writer.write(wrong)
            async with asyncio.timeout(0.5):  # at once, not when the time for a HELLO is over
                assert await reader.read() == b""
            writer.close()
    finally:
        logger.removeHandler(handler)
    lines = [record for record in seen if record.msg == "link_refused"]
    assert 1 <= len(lines) <= 3
    assert TOKEN not in "".join(str(vars(record)) for record in lines)
