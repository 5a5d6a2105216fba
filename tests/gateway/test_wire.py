"""Requests that only raw sockets can send."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, request_head

KEY = {"x-api-key": "sk-any"}
CHUNKED = {**KEY, "transfer-encoding": "chunked"}


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers."""
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines)


async def test_an_endless_body_ends_in_408(open_site: Open) -> None:
    site = await open_site(body_timeout_s=0.15)
    reader, writer = await site.connect()
    writer.write(request_head(CHUNKED) + b"1\r\n{\r\n")
    status, headers = await answer(reader)
    assert status == 408
    assert headers["x-should-retry"] == "false"
    assert headers["connection"] == "close"
    assert b"request_timeout" in await reader.read()
    writer.close()
    assert site.counted(outcome="rejected") == site.counted() == 1


async def test_a_dripping_body_ends_in_408(open_site: Open) -> None:
    site = await open_site(body_timeout_s=0.15)
    reader, writer = await site.connect()
    writer.write(request_head(CHUNKED))

    async def drip() -> None:
        while not writer.is_closing():
            writer.write(b"1\r\n \r\n")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert (await answer(reader))[0] == 408
    dripping.cancel()
    writer.close()


async def test_an_endless_flood_ends_in_413(open_site: Open) -> None:
    site = await open_site(max_body_bytes=100_000)
    reader, writer = await site.connect()
    writer.write(request_head(CHUNKED) + b"186a1\r\n" + b"x" * 100_001 + b"\r\n")
    assert (await answer(reader))[0] == 413
    writer.close()


async def test_an_announced_body_too_large_is_refused_unread(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(request_head({**KEY, "content-length": str(site.settings.max_body_bytes + 1)}))
    status, headers = await answer(reader)
    assert (status, headers["connection"]) == (413, "close")
    writer.close()


async def test_a_chunked_body_is_read(site: Site) -> None:
    reader, writer = await site.connect()
    body = b'{"model": "echo", "prompt": "p"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    writer.write(request_head(CHUNKED) + chunks)
    assert (await answer(reader))[0] == 200
    writer.close()


async def test_a_header_bomb_ends_in_431(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(request_head({**KEY, "x-bomb": "x" * 20_000, "content-length": "0"}))
    status, headers = await answer(reader)
    assert (status, headers["connection"]) == (431, "close")
    assert b"headers_too_large" in await reader.read()
    writer.close()


async def test_a_connection_is_used_again(site: Site) -> None:
    reader, writer = await site.connect()
    body = b'{"model": "echo", "prompt": "p"}'
    for _ in range(3):
        writer.write(request_head({**KEY, "content-length": str(len(body))}) + body)
        status, headers = await answer(reader)
        assert status == 200
        await reader.readexactly(int(headers["content-length"]))
    writer.close()


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n"])
async def test_garbage_harms_nobody(site: Site, eventually: Eventually, garbage: bytes) -> None:
    reader, writer = await site.connect()
    writer.write(garbage)
    async with asyncio.timeout(5):
        assert (await answer(reader))[0] == 400
        await reader.read()  # until the router closes
    writer.close()
    async with site.wire() as wire:
        assert (await wire.get("/health")).status_code == 200
