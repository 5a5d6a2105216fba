"""What the listener refuses before it is a request has one outcome too, and is counted once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from serving.router.router import OWN_CONNECTIONS
from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, request_head
from tests.gateway.responses import responses

BAD_HEAD = b"GET / HTTP/1.1\r\nhost: x\r\nbad name: y\r\n\r\n"
LONG_URL = b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"


def refused(site: Site, code: str) -> float:
    value = site.metrics.registry.get_sample_value
    return value("serving_http_refused_total", {"code": code}) or 0


async def say(site: Site, data: bytes) -> bytes:
    reader, writer = await site.connect()
    writer.write(data)
    said = await reader.read()
    writer.close()
    return said


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (BAD_HEAD, "invalid_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "invalid_request"),
        (b"GET / HTTP/2.5\r\nhost: x\r\n\r\n", "unsupported_version"),
        (LONG_URL, "url_too_long"),
    ],
)
async def test_a_head_that_is_none(site: Site, data: bytes, code: str) -> None:
    (response,) = responses(await say(site, data))
    assert response.json["error"]["code"] == code
    assert refused(site, code) == 1
    assert site.counted(outcome="rejected", endpoint="none", model="none") == site.counted() == 1


async def test_a_bad_body_is_counted_by_its_request_alone(
    site: Site, eventually: Eventually
) -> None:
    """The app has its head by then, so the request has a record of its own."""
    head = request_head({"transfer-encoding": "chunked", "x-api-key": "sk-any"})
    said = await say(site, head + b"zz\r\n")
    assert responses(said)[0].status == 400
    await eventually(lambda: site.counted())
    assert site.counted(outcome="rejected", endpoint="/v4/completions") == site.counted() == 1
    assert refused(site, "invalid_request") == 0


async def test_too_many_connections(open_site: Open, eventually: Eventually) -> None:
    """Running streams are not touched; the next caller is told to come again."""
    site = await open_site(engine={"interval_s": 60}, max_connections=2)
    streams = [await site.send(stream=True) for _ in range(2)]
    await eventually(lambda: site.running == 2)
    reader, writer = await site.send(stream=True)
    (response,) = responses(await reader.read())
    writer.close()
    assert response.status == 503
    assert response.headers["retry-after"] == "5"
    assert response.json["error"]["code"] == "overloaded"
    assert refused(site, "overloaded") == 1
    assert site.counted(outcome="rejected", endpoint="none") == site.counted() == 1
    assert site.running == 2
    for _, stream in streams:
        stream.close()
    await eventually(lambda: site.idle)


async def test_probes_have_room_of_their_own(open_site: Open, eventually: Eventually) -> None:
    """However many requests run, the router's own port tells that it lives, and what it does."""
    site = await open_site(engine={"interval_s": 60}, max_connections=2)
    streams = [await site.send(stream=True) for _ in range(2)]
    await eventually(lambda: site.running == 2)
    own = f"http://127.0.0.1:{site.router.entry.port}"
    async with httpx.AsyncClient(base_url=own, trust_env=False) as probe:
        for path in ("/health", "/ready", "/metrics", "/-/healthz"):
            assert (await probe.get(path)).status_code == 200
    assert refused(site, "overloaded") == 0
    assert site.running == 2
    for _, stream in streams:
        stream.close()
    await eventually(lambda: site.idle)


async def test_the_own_port_is_bounded_too(site: Site, eventually: Eventually) -> None:
    """Who opens many connections to it takes no room from callers, nor from other probes."""
    await site.listen()
    opened = []
    for _ in range(2 * OWN_CONNECTIONS):
        opened.append(await asyncio.open_connection("127.0.0.1", site.router.entry.port))
    await eventually(lambda: refused(site, "overloaded") == OWN_CONNECTIONS)
    own = f"http://127.0.0.1:{site.router.entry.port}"
    async with httpx.AsyncClient(base_url=own, trust_env=False) as probe:
        assert (await probe.get("/health")).status_code == 200
    for _, writer in opened:
        writer.close()


async def test_the_log_has_few_lines_of_many(site: Site) -> None:
    for _ in range(20):
        await say(site, BAD_HEAD)
    assert site.counted(outcome="rejected") == 20
    assert 1 <= site.log_text().count("http_refused") <= 4
