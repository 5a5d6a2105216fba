"""What a host may deliver, and in which time, against a real HTTPS server on loopback."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult

from serving.errors import InvalidField, InvalidRequest
from tests.unit.engine.images.hosts import CONTENT, HOST, Dns, Handler, Host


async def test_an_unknown_certificate_is_refused(host: Host) -> None:
    with pytest.raises(InvalidRequest, match="no certificate to trust"):
        await host.fetcher(trusting=False).fetch(host.url())
    assert host.requests == []


async def test_the_certificate_must_be_the_hosts(host: Host) -> None:
    with pytest.raises(InvalidRequest, match="no certificate to trust"):
        await host.fetcher(hosts=(f"other.org:{host.port}",)).fetch(host.url(host="other.org"))


# what a host delivers


@pytest.mark.parametrize("status", [201, 204, 304, 404, 500])
async def test_other_statuses_are_the_hosts_fault(host: Host, status: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    host.handler = answer
    with pytest.raises(InvalidRequest, match=f"answered with status {status}"):
        await host.fetcher().fetch(host.url())


async def test_nobody_there(host: Host) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        fetcher = host.fetcher(hosts=(f"{HOST}:{port}",))
        with pytest.raises(InvalidRequest, match="cannot be reached"):
            await fetcher.fetch(f"https://{HOST}:{port}/")


async def test_an_unknown_name(host: Host) -> None:
    class Nowhere(Dns):
        async def resolve(self, *_: Any, **__: Any) -> list[ResolveResult]:
            raise OSError("no such name")

    with pytest.raises(InvalidRequest, match="cannot be reached"):
        await host.fetcher(dns=Nowhere()).fetch(host.url())


async def test_an_announced_length_above_the_limit_is_refused(host: Host) -> None:
    with pytest.raises(InvalidField, match="at most 20 bytes"):
        await host.fetcher(max_bytes=20).fetch(host.url())
    assert await host.fetcher(max_bytes=len(CONTENT)).fetch(host.url()) == CONTENT


async def test_an_endless_body_without_a_length_is_cut_off(host: Host) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\x89PNG" * 1024)

    host.handler = endless
    with pytest.raises(InvalidField, match="at most 100000 bytes"):
        await host.fetcher(max_bytes=100_000).fetch(host.url())


async def test_a_compressed_body_is_refused(host: Host) -> None:
    async def bomb(request: web.Request) -> web.StreamResponse:
        body = gzip.compress(b"\0" * 1_000_000)
        return web.Response(body=body, headers={"content-encoding": "gzip"})

    host.handler = bomb
    with pytest.raises(InvalidField, match="compressed"):
        await host.fetcher().fetch(host.url())


async def slow_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-length": "100000"})
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.05)


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def slow_redirects(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0.2)
    return web.Response(status=302, headers={"location": "/again"})


@pytest.mark.parametrize("handler", [slow_body, silent, slow_redirects])
async def test_the_time_limit_is_for_the_whole_fetch(host: Host, handler: Handler) -> None:
    host.handler = handler
    started = time.monotonic()
    with pytest.raises(InvalidRequest, match=r"did not deliver within 0\.5 s"):
        await host.fetcher(timeout_s=0.5).fetch(host.url())
    assert time.monotonic() - started < 1.5
