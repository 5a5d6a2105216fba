"""Whatever bytes a client sends, it gets a correct answer or one refusal that says why, and nobody
else is harmed: HTTP itself, on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.gateway.conftest import Open, Site, request_head
from tests.gateway.responses import Said, responses

KEY = {"x-api-key": "sk-any"}
BODY = json.dumps({"model": "echo", "prompt": "one two three"}).encode()
STREAM = json.dumps({"model": "echo", "prompt": "one two three", "stream": True}).encode()
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

# What is noticed at once is noticed after so few turns of the event loop, of 5 ms each.
SOON_TURNS = 20


def post(body: bytes = BODY, path: str = "/v4/completions", **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if "transfer-encoding" not in named:
        named.setdefault("content-length", str(len(body)))
    return request_head({**KEY, **named}, path) + body


def chunked(body: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))


async def ask(site: Site, *parts: bytes, within_s: float = 5.0, pause_s: float = 0.0) -> list[Said]:
    """What the server says to `parts` until it closes."""
    reader, writer = await site.connect()
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(within_s):
            return responses(await reader.read())
    finally:
        writer.close()


async def refused(site: Site, *parts: bytes) -> Said:
    """The one refusal that `parts` get."""
    (said,) = await ask(site, *parts)
    said.check_refusal()
    return said


async def soon(condition: Callable[[], bool]) -> None:
    """Wait for what comes at once, not with the next look at a clock: in turns of the event loop,
    which client and server share, so that a machine that is busy elsewhere does not count. On one
    that is not they are `SOON_TURNS * 5` ms."""
    for _ in range(SOON_TURNS):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"not within {SOON_TURNS} turns of the event loop")


def counted_by_outcome(site: Site) -> dict[str, float]:
    (family,) = site.metrics.requests.collect()
    found: dict[str, float] = {}
    for sample in family.samples:
        if sample.name == "serving_requests_total":
            outcome = sample.labels["outcome"]
            found[outcome] = found.get(outcome, 0) + sample.value
    return found


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave with a RST, as a killed client does."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# What two servers could read in two ways


AMBIGUOUS: dict[str, tuple[bytes, int]] = {
    "two lengths": (post(content_length="5\r\ncontent-length: 6"), 400),
    "a length twice": (post(content_length="5\r\ncontent-length: 5"), 400),
    "a list of lengths": (post(content_length="5, 5"), 400),
    "signed": (post(content_length="+5"), 400),
    "negative": (post(content_length="-5"), 400),
    "hexadecimal": (post(content_length="0x5"), 400),
    "fraction": (post(content_length="5.0"), 400),
    "underscore": (post(content_length="1_0"), 400),
    "no length": (post(content_length=""), 400),
    "two numbers": (post(content_length="5 5"), 400),
    "a length of 70 bits": (post(content_length="9" * 21), 413),
    "a length of 60 bits": (post(content_length="9" * 18), 413),
    "length and chunks": (post(content_length="5", transfer_encoding="chunked"), 400),
    "chunks and length": (post(transfer_encoding="chunked\r\ncontent-length: 5"), 400),
    "gzip in chunks": (post(transfer_encoding="gzip, chunked"), 501),
    "gzip in chunks, two lines": (
        post(transfer_encoding="gzip\r\ntransfer-encoding: chunked"),
        501,
    ),
    "identity in chunks": (post(transfer_encoding="identity, chunked"), 501),
    "chunks in gzip": (post(transfer_encoding="chunked, gzip"), 400),
    "chunks twice": (post(transfer_encoding="chunked, chunked"), 400),
    "chunks twice, two lines": (
        post(transfer_encoding="chunked\r\ntransfer-encoding: chunked"),
        400,
    ),
    "gzip": (post(transfer_encoding="gzip"), 400),
    "nearly chunked": (post(transfer_encoding="xchunked"), 400),
    "quoted": (post(transfer_encoding='"chunked"'), 400),
    "an empty coding": (post(transfer_encoding=""), 400),
    "a vertical tab": (post(transfer_encoding="\x0bchunked"), 400),
    "space before the colon": (post(**{"transfer-encoding ": "chunked"}), 400),
    "tab before the colon": (post(**{"x\t": "a"}), 400),
    "a folded line": (post(x="a\r\n b"), 400),
    "a folded first line": (request_head({" x": "a", **KEY}), 400),
    "bare LF": (post().replace(b"\r\n", b"\n"), 400),
    "one bare LF": (post(x="a\nb: c"), 400),
    "bare CR": (post(x="a\rb: c"), 400),
    "NUL in a value": (post(x="a\0b"), 400),
    "NUL in a name": (post(**{"x\0": "a"}), 400),
    "DEL": (post(x="\x7f"), 400),
    "no name": (post(**{"": "a"}), 400),
    "no colon": (request_head(KEY).replace(b"x-api-key: ", b"x-api-key ") + BODY, 400),
    "no host": (HEALTH.replace(b"host: x\r\n", b""), 400),
    "two hosts": (post(host="y"), 400),
    "no host name": (HEALTH.replace(b"host: x", b"host: a b"), 400),
    "an end of LFs": (HEALTH.replace(b"\r\n\r\n", b"\r\n\n"), 400),
    "no path": (HEALTH.replace(b"/health", b"health"), 400),
    "two spaces": (HEALTH.replace(b"GET ", b"GET  "), 400),
    "a space in the path": (HEALTH.replace(b"/health", b"/he alth"), 400),
    "a fragment": (HEALTH.replace(b"/health", b"/health#x"), 400),
    "a path of Latin-1": (HEALTH.replace(b"/health", b"/h\xe9alth"), 400),
    "a control character": (HEALTH.replace(b"/health", b"/\x01"), 400),
    "another scheme": (HEALTH.replace(b"/health", b"ftp://x/health"), 400),
    "lower case": (HEALTH.replace(b"GET", b"get"), 400),
    "an unknown method": (HEALTH.replace(b"GET", b"BREW"), 400),
    "RTSP": (HEALTH.replace(b"HTTP/1.1", b"RTSP/1.0"), 400),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 400),
    "HTTP/0.9, said": (HEALTH.replace(b"HTTP/1.1", b"HTTP/0.9"), 505),
    "HTTP/1.2": (HEALTH.replace(b"HTTP/1.1", b"HTTP/1.2"), 505),
    "HTTP/1.10": (HEALTH.replace(b"HTTP/1.1", b"HTTP/1.10"), 505),
    "HTTP/2.0": (HEALTH.replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
    "HTTP/9.9": (HEALTH.replace(b"HTTP/1.1", b"HTTP/9.9"), 505),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 30, 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500, 400),
    "no length at all": (request_head(KEY) + BODY, 411),
    "another expectation": (post(expect="200-maybe"), 417),
    "chunks in HTTP/1.0": (
        post(transfer_encoding="chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
        400,
    ),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    "CONNECT with a path": (HEALTH.replace(b"GET", b"CONNECT"), 405),
    "a URL of 9 KB": (HEALTH.replace(b"/health", b"/" + b"a" * 9000), 414),
    "a URL of 60 KB": (HEALTH.replace(b"/health", b"/" + b"a" * 60_000), 414),
    "a query of 60 KB": (HEALTH.replace(b"/health", b"/health?" + b"a" * 60_000), 414),
    "headers of 70 KB": (post(x="a" * 70_000), 431),
    "20,000 headers": (post(x="a" + "\r\nx: a" * 20_000), 431),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_what_can_be_read_in_two_ways_is_refused(site: Site, name: str) -> None:
    data, status = AMBIGUOUS[name]
    said = await refused(site, data + LAST)
    assert said.status == status
    assert len(said.body) < 1000, "an echo"
    assert site.engines[0].calls == []


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_however_it_is_split(site: Site, name: str) -> None:
    data, status = AMBIGUOUS[name]
    data = data[:3000]
    parts = [data[at : at + 1] for at in range(min(len(data), 120))] + [data[120:], LAST]
    if "KB" in name or "20,000" in name:
        parts = [data] * 70
    reader, writer = await site.connect()
    for part in parts:
        if writer.is_closing():
            break
        writer.write(part)
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        (said,) = responses(await reader.read())
    said.check_refusal()
    assert said.status == status or "KB" in name or "20,000" in name
    writer.close()


CHUNKS: dict[str, tuple[bytes, int]] = {
    "no number": (b"nonsense\r\n", 400),
    "negative": (b"-1\r\n", 400),
    "signed": (b"+1\r\na\r\n0\r\n\r\n", 400),
    "prefixed": (b"0x1\r\na\r\n0\r\n\r\n", 400),
    "underscore": (b"1_0\r\n", 400),
    "spaced": (b"1 \r\na\r\n0\r\n\r\n", 400),
    "space before an extension": (b"1 ;a\r\na\r\n0\r\n\r\n", 400),
    "space before": (b" 1\r\na\r\n0\r\n\r\n", 400),
    "empty": (b"\r\n", 400),
    "bare LF": (b"1\na\n0\n\n", 400),
    "bare CR": (b"1\ra\r\r", 400),
    "LF in an extension": (b"1;a\nb\r\na\r\n0\r\n\r\n", 400),
    "CR in an extension": (b"1;a\rb\r\na\r\n0\r\n\r\n", 400),
    "NUL in an extension": (b"1;\0\r\na\r\n0\r\n\r\n", 400),
    "too long": (b"1\r\nab\r\n0\r\n\r\n", 400),
    "no CRLF after it": (b"1\r\na0\r\n\r\n", 400),
    "64 bits": (b"ffffffffffffffff\r\n", 413),
    "70 digits": (b"f" * 70 + b"\r\n", 413),
    "a line without an end": (b"1" * 5000, 400),
    "an endless extension": (b"1;" + b"a" * 5000, 400),
    "nothing but extensions": (b"1;%b\r\na\r\n" % (b"a" * 2000) * 100, 400),
    "many small ones": (b"1\r\n \r\n" * 20_000, 400),
    "no trailer": (b"0\r\nnonsense\r\n\r\n", 400),
    "a folded trailer": (b"0\r\na: b\r\n c\r\n\r\n", 400),
    "a length as trailer": (b"0\r\nContent-Length: 5\r\n\r\n", 400),
    "a coding as trailer": (b"0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "a bare LF after the last": (b"0\r\n\n", 400),
    "trailers of 20 KB": (b"0\r\n" + b"a: b\r\n" * 4000 + b"\r\n", 431),
}


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("split", [False, True])
async def test_malformed_chunks_are_refused(site: Site, name: str, split: bool) -> None:
    data, status = CHUNKS[name]
    head = request_head({**KEY, "transfer-encoding": "chunked"})
    parts = [head + data]
    if split:
        parts = [head, *(data[at : at + 1] for at in range(100)), data[100:]]
    said = await refused(site, *parts, LAST)
    assert said.status == status
    assert site.counted(outcome="rejected") == site.counted() == 1
    assert site.engines[0].calls == []


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


# Leaving


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
