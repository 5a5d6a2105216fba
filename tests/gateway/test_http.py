"""Whatever bytes a client sends, it gets a correct answer or one refusal that says why, and nobody
else is harmed: HTTP itself, on real sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.conftest import Open, Site, request_head
from tests.gateway.raw import (
    BODY,
    HEALTH,
    KEY,
    LAST,
    STREAM,
    ask,
    chunked,
    post,
)
from tests.gateway.responses import responses

# What is odd, and right


@pytest.mark.parametrize("zeros", [1, 100, 5000])
async def test_a_length_may_begin_with_zeros(site: Site, zeros: int) -> None:
    request = post(content_length="0" * zeros + str(len(BODY)), connection="close")
    (said,) = await ask(site, request)
    assert (said.status, said.json["completion"]["text"]) == (200, "one two three ")


async def test_5000_zeros_are_no_body(site: Site) -> None:
    (said,) = await ask(site, post(b"", content_length="0" * 5000, connection="close"))
    assert (said.status, said.json["error"]["code"]) == (400, "invalid_request")


async def test_chunks_with_extensions_and_trailers(site: Site) -> None:
    head = request_head({**KEY, "transfer-encoding": "Chunked", "connection": "close"})
    body = b'5;a="b;c";d\r\n' + BODY[:5] + b"\r\n00" + b"%X; e\r\n" % len(BODY[5:]) + BODY[5:]
    (said,) = await ask(site, head + body + b"\r\n000\r\nx-trailer: a\r\n\r\n")
    assert said.json["completion"]["text"] == "one two three "


async def test_a_trailer_is_no_header(site: Site) -> None:
    head = request_head({"transfer-encoding": "chunked"})
    data = head + b"%x\r\n%b\r\n" % (len(BODY), BODY) + b"0\r\nx-api-key: sk-any\r\n\r\n"
    (said, _) = await ask(site, data + LAST)
    assert said.status == 401


async def test_a_whole_url_as_target(site: Site) -> None:
    for target in (b"http://x/health", b"HTTP://x:80/health?a=b", b"https://x/health"):
        (said,) = await ask(site, LAST.replace(b"/health", target))
        assert said.status == 200
    (said,) = await ask(site, LAST.replace(b"/health", b"http://x"))
    assert said.status == 404


async def test_empty_lines_before_a_request(site: Site) -> None:
    (said,) = await ask(site, b"\r\n\r\n\r\n" + LAST)
    assert said.status == 200


async def test_every_method_is_answered(site: Site) -> None:
    for method in (b"DELETE", b"OPTIONS", b"TRACE", b"QUERY", b"PROPFIND"):
        (said,) = await ask(site, LAST.replace(b"GET", method))
        assert said.status == 405
    (said,) = await ask(site, LAST.replace(b"GET /health", b"OPTIONS *"))
    assert said.status == 404


# Upgrades that are not done


UPGRADES = {
    "h2c": {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAA"},
    "websocket": {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"},
    "unknown": {"connection": "upgrade", "upgrade": "nonsense/1"},
    "TLS": {"connection": "upgrade", "upgrade": "TLS/1.0"},
}


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("split", [False, True])
async def test_an_upgrade_is_ignored_and_the_body_is_read(
    site: Site, upgrade: str, split: bool
) -> None:
    smuggled = request_head({**KEY, "content-length": "0"}, "/smuggled")
    for body, status in ((BODY, 200), (smuggled, 400)):
        request = post(body, **UPGRADES[upgrade])
        end = request.index(b"\r\n\r\n") + 4
        parts = (request[:end], request[end:]) if split else (request,)
        answered, last = await ask(site, *parts, LAST, pause_s=0.05 if split else 0)
        assert (answered.status, last.status) == (status, 200)
    assert site.counted(endpoint="other") == 0


@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_an_upgrade_with_chunks(site: Site, upgrade: str) -> None:
    request = post(b"", transfer_encoding="chunked", **UPGRADES[upgrade])
    answered, last = await ask(site, request, chunked(BODY) + b"0\r\n\r\n", LAST)
    assert (answered.status, last.status) == (200, 200)


# HTTP/1.0


async def test_a_stream_in_http_1_0_ends_with_its_connection(site: Site) -> None:
    (said,) = await ask(site, post(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert said.status == 200
    assert "transfer-encoding" not in said.headers
    assert said.body.startswith(b"data: ")
    assert said.body.endswith(b"\n\n")
    assert b'"token_usage":{"prompt":3' in said.body


async def test_http_1_0_closes_unless_it_asks_otherwise(site: Site) -> None:
    (said,) = await ask(site, post().replace(b"HTTP/1.1", b"HTTP/1.0") + LAST)
    assert (said.status, said.closes) == (200, True)
    kept = post(connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
    first, last = await ask(site, kept + LAST)
    assert first.headers["connection"] == "keep-alive"
    assert last.status == 200
    # A stream cannot be kept.
    kept = post(STREAM, connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
    (said,) = await ask(site, kept + LAST)
    assert said.closes


async def test_http_1_0_needs_no_host_and_knows_no_continue(site: Site) -> None:
    request = post(expect="100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    (said,) = await ask(site, request.replace(b"host: gateway\r\n", b""))
    assert said.status == 200


# Expect


async def test_a_client_that_waits_is_told_to_go_on(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(post(b"", content_length=str(len(BODY)), expect="100-Continue"))
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY + LAST)
    async with asyncio.timeout(5):
        first, last = responses(await reader.read())
    assert (first.status, last.status) == (200, 200)
    writer.close()


async def test_a_client_that_does_not_wait_is_not_told(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(post(expect="100-continue") + LAST)
    async with asyncio.timeout(5):
        said = await reader.read()
    assert b" 100 " not in said
    assert [each.status for each in responses(said)] == [200, 200]
    writer.close()


async def test_a_refused_client_is_not_told_to_go_on(site: Site) -> None:
    """Whether it sends its body now, nobody knows: the connection is of no more use."""
    (said,) = await ask(site, post(b"", content_length="99", expect="100-continue", x_api_key="?"))
    assert (said.status, said.closes) == (401, True)
    (said,) = await ask(site, post(b"", content_length=str(2**40), expect="100-continue"))
    assert (said.status, said.closes) == (413, True)


# Behind and ahead


GARBAGE = [b"\0\1\2\r\n\r\n", b"nonsense\r\n\r\n", b"GET /health HTTP/1.1\r\nx y\r\n\r\n", b"}\n"]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("request_", [post(), post(STREAM), HEALTH])
async def test_garbage_after_a_request_is_refused_after_its_answer(
    site: Site, request_: bytes, garbage: bytes
) -> None:
    answered, last = await ask(site, request_ + garbage)
    assert (answered.status, last.status) == (200, 400)
    last.check_refusal()


async def test_a_longer_body_than_was_said(site: Site) -> None:
    answered, last = await ask(site, post(content_length=str(len(BODY))) + b'{"model": "echo"}')
    assert (answered.status, last.status) == (200, 400)


async def test_many_requests_at_once(site: Site) -> None:
    said = await ask(site, (post() + HEALTH + post(STREAM)) * 20 + LAST, within_s=20)
    assert [each.status for each in said] == [200] * 61
    assert site.counted(outcome="ok") == 61


async def test_an_answer_without_the_body_closes(site: Site) -> None:
    """401 before the body is in: what comes then must not be read as a request."""
    smuggled = request_head({**KEY, "content-length": "0"}, "/smuggled")
    for headers in ({"content_length": "100000"}, {"transfer_encoding": "chunked"}):
        (said,) = await ask(site, post(b"", x_api_key="?", **headers), smuggled, pause_s=0.05)
        assert (said.status, said.closes) == (401, True)
    assert site.counted(endpoint="other") == 0


async def test_a_large_body_that_is_refused_sees_why(site: Site) -> None:
    """The server reads on before it closes; closed with bytes unread, TCP would reset."""
    reader, writer = await site.connect()
    body = b"x" * 8_000_000
    writer.write(post(body, x_api_key="?"))
    async with asyncio.timeout(5):
        (said,) = responses(await reader.read())
    assert said.status == 401
    writer.close()


async def test_too_much_ahead_is_refused_after_the_answer(open_site: Open) -> None:
    """What fits is answered, and nothing that follows is mistaken for a request."""
    site = await open_site(engine={"interval_s": 0.05, "repeat": 10})
    reader, writer = await site.connect()
    writer.write(post(STREAM) + HEALTH)
    data = await reader.readuntil(b"one")
    for _ in range(30):
        writer.write(post(HEALTH * 300))
        await asyncio.sleep(0.001)
    async with asyncio.timeout(10):
        stream, page, *refusals, last = responses(data + await reader.read())
    assert (stream.status, stream.whole, page.status) == (200, True, 200)
    assert {said.status for said in refusals} <= {400}
    assert "65536 bytes" in last.json["error"]["message"]
    last.check_refusal()
    assert site.counted(endpoint="/health") == 1
    writer.close()
