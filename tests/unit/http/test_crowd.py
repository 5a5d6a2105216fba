"""Too many connections: whoever has no request goes first, and nobody who has one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serving.errors import ServingError
from serving.http.crowd import LEAVING_MIN
from serving.http.listener import HttpServer, listen
from serving.http.patience import Patience

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LIMIT = 3

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Site:
    """A server of `LIMIT` connections, whose answers end when `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = 0
        self.refused: list[ServingError] = []
        self.opened: list[Pair] = []
        self.server = HttpServer(
            self.app,
            listen("127.0.0.1"),
            max_connections=LIMIT,
            on_refused=self.refused.append,
            patience=Patience(linger_s=5),
        )

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.running += 1
        if scope["path"] != "/now":
            await receive()
            left = asyncio.ensure_future(receive())
            going = asyncio.ensure_future(self.go.wait())
            await asyncio.wait((left, going), return_when=asyncio.FIRST_COMPLETED)
            left.cancel()
            going.cancel()
        self.running -= 1
        await send({"type": "http.response.body", "body": b"done"})

    async def open(self, data: bytes = b"") -> Pair:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self.opened.append((reader, writer))
        writer.write(data)
        await asyncio.sleep(0.03)
        return reader, writer


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    await site.server.start()
    yield site
    site.go.set()
    for _, writer in site.opened:
        writer.close()
    await site.server.close()


async def all_of(pair: Pair) -> bytes:
    async with asyncio.timeout(2):
        return await pair[0].read()


async def ends_well(site: Site, pair: Pair) -> None:
    site.go.set()
    async with asyncio.timeout(2):
        assert b"done" in await pair[0].readuntil(b"0\r\n\r\n")


def check_refused(said: bytes) -> None:
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 "), said
    assert b"retry-after: 5" in head
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert error["code"] == "overloaded"
    assert str(LIMIT) in error["message"]


async def test_a_new_one_is_refused_if_all_others_have_requests(site: Site) -> None:
    busy = [await site.open(REQUEST) for _ in range(LIMIT)]
    check_refused(await all_of(await site.open(REQUEST)))
    assert [error.code for error in site.refused] == ["overloaded"]
    assert site.running == LIMIT
    for pair in busy:
        await ends_well(site, pair)
    assert len(site.refused) == 1


async def test_the_one_that_is_idle_longest_goes_without_a_word(site: Site) -> None:
    now = REQUEST.replace(b"/", b"/now", 1)
    idle = [await site.open(now) for _ in range(2)]
    for reader, _ in idle:
        await reader.readuntil(b"0\r\n\r\n")
    busy = await site.open(REQUEST)
    idle[0][1].write(now)  # which makes the second one the oldest
    await idle[0][0].readuntil(b"0\r\n\r\n")
    new = await site.open(REQUEST)
    assert await all_of(idle[1]) == b""
    assert not idle[0][0].at_eof()
    assert site.refused == []
    await ends_well(site, busy)
    await ends_well(site, new)


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
async def test_one_whose_request_does_not_come_goes_and_is_told(site: Site, begun: bytes) -> None:
    slow = [await site.open(begun) for _ in range(LIMIT)]
    new = await site.open(REQUEST)
    check_refused(await all_of(slow[0]))
    assert not slow[1][0].at_eof()
    await ends_well(site, new)


async def test_one_caller_who_opens_many_locks_nobody_out(site: Site) -> None:
    """Thousands of idle connections, and those who never close: a request still has its answer,
    and the server holds a bounded number of them."""
    busy = await site.open(REQUEST)
    for _ in range(100):
        site.opened.append(await asyncio.open_connection("127.0.0.1", site.server.port))
    new = await site.open(REQUEST)
    assert site.running == 2
    held = site.server.connections
    assert held <= LIMIT + LEAVING_MIN + 1
    await ends_well(site, busy)
    await ends_well(site, new)


async def test_room_is_made_when_one_leaves(site: Site) -> None:
    busy = [await site.open(REQUEST) for _ in range(LIMIT)]
    busy[0][1].close()
    await asyncio.sleep(0.05)
    await ends_well(site, await site.open(REQUEST))
    assert site.refused == []
