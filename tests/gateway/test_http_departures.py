"""A client that leaves is noticed at once, whatever it had sent before: HTTP itself, on real
sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, request_head
from tests.gateway.raw import (
    BODY,
    HEALTH,
    KEY,
    STREAM,
    counted_by_outcome,
    post,
    reset,
    soon,
)
from tests.gateway.responses import responses


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "behind",
    [
        b"",
        HEALTH,
        HEALTH * 100,
        post(),
        post(b"x" * 60_000),
        post(b"x" * 5_000_000),
        b"GET /health HT",
        b"\0nonsense",
        request_head({**KEY, "transfer-encoding": "chunked"}) + b"5\r\nab",
    ],
    ids=["nothing", "a page", "pages", "a post", "60 KB", "5 MB", "a part", "garbage", "chunks"],
)
async def test_a_departure_is_noticed_whatever_was_sent(
    open_site: Open, eventually: Eventually, stream: bool, how: str, behind: bytes
) -> None:
    site = await open_site(engine={"interval_s": 0.02, "repeat": 1000})
    reader, writer = await site.connect()
    writer.write(post(STREAM if stream else BODY))
    await eventually(lambda: site.running == 1)
    if stream:
        await reader.readuntil(b"one")
    writer.write(behind)
    await asyncio.sleep(0.1)
    assert site.running == 1
    if how == "close":
        writer.close()
    elif how == "half":
        writer.write_eof()
    else:
        reset(writer)
    # A client that only closes its sending side has to get its 5 MB out first.
    await soon(lambda: site.idle and site.counted(outcome="cancelled") == 1)
    await asyncio.sleep(0.05)
    assert counted_by_outcome(site) == {"cancelled": 1}
    lines: list[dict[str, Any]] = [json.loads(line) for line in site.log_text().splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request"] == [499]
    assert not [line for line in lines if line["level"] == "ERROR" or "exc_info" in line]
    writer.close()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_who_leaves_between_two_requests(
    site: Site, eventually: Eventually, how: str
) -> None:
    reader, writer = await site.connect()
    writer.write(post())
    await reader.readuntil(b"}}")
    writer.close() if how == "close" else reset(writer)
    await eventually(lambda: site.idle)
    assert counted_by_outcome(site) == {"ok": 1}


async def test_a_page_is_sent_to_who_has_closed_its_sending_side(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(HEALTH * 2)
    writer.write_eof()
    async with asyncio.timeout(5):
        assert [said.status for said in responses(await reader.read())] == [200, 200]
    writer.close()


@pytest.mark.parametrize("part", [b"GET", b"GET /health HTTP/1.1\r\nhost: x\r\n", HEALTH + b"GET"])
async def test_an_end_within_the_headers_is_refused(site: Site, part: bytes) -> None:
    reader, writer = await site.connect()
    writer.write(part)
    writer.write_eof()
    async with asyncio.timeout(5):
        last = responses(await reader.read())[-1]
    last.check_refusal()
    assert "closed" in last.json["error"]["message"]
    writer.close()


async def test_an_end_within_the_body_is_a_departure(site: Site, eventually: Eventually) -> None:
    for headers in ({"content_length": "500"}, {"transfer_encoding": "chunked"}):
        reader, writer = await site.connect()
        writer.write(post(b"", **headers) + b"1\r\n{\r\n")
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
    await eventually(lambda: counted_by_outcome(site) == {"cancelled": 2})
