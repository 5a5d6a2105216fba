"""What two servers could read in two ways gets one refusal, and nothing behind it is read: HTTP
itself, on real sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.conftest import Site, request_head
from tests.gateway.raw import (
    BODY,
    HEALTH,
    KEY,
    LAST,
    post,
    refused,
)
from tests.gateway.responses import responses

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
