"""Heads, however they are cut into reads. What is refused:
`tests/gateway/test_http_ambiguous.py`."""

from __future__ import annotations

import pytest

from serving.errors import HeadersTooLarge, TargetTooLong
from serving.http.head import MAX_HEADER_BYTES, MAX_TARGET_BYTES, Head, HeadReader


def read(data: bytes, *, cut: int = 0) -> tuple[Head, bytes]:
    reader, rest = HeadReader(), b""
    for part in (data[:cut], data[cut:]):
        rest = rest + part if reader.head is not None else reader.feed(part)
    assert reader.head is not None
    return reader.head, rest


POST = (
    b"\r\nPOST /a%20b?c=d HTTP/1.1\r\nHost: x:80\r\nX-A: b c \r\nContent-Length: 007\r\n"
    b"Expect: 100-Continue\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
)


def test_a_head_cut_anywhere() -> None:
    for cut in range(len(POST) + 1):
        head, rest = read(POST + b"{body}\r\n\r\n", cut=cut)
        assert (head.method, head.target, head.version) == ("POST", b"/a%20b?c=d", "1.1")
        assert (head.length, head.keep_alive, head.expects_continue) == (7, True, True)
        assert (b"content-length", b"7") in head.headers
        assert (b"x-a", b"b c") in head.headers
        assert head.headers[0] == (b"host", b"x:80")
        assert rest == b"{body}\r\n\r\n"


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", b"", True),
        ("1.1", b"close", False),
        ("1.1", b"Upgrade, Close", False),
        ("1.1", b"x\r\nConnection: close", False),
        ("1.0", b"", False),
        ("1.0", b"Keep-Alive", True),
        ("1.0", b"keep-alive, close", False),
    ],
)
def test_what_becomes_of_the_connection(version: str, connection: bytes, kept: bool) -> None:
    line = b"GET / HTTP/%b\r\nhost: x\r\n" % version.encode()
    head, _ = read(line + b"connection: %b\r\n\r\n" % connection)
    assert (head.version, head.keep_alive) == (version, kept)


def test_chunks_have_no_length() -> None:
    head, _ = read(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: \tChunked \r\n\r\n")
    assert head.length is None


@pytest.mark.parametrize(
    ("target", "own"),
    [
        (b"/", b"/"),
        (b"//a/b", b"//a/b"),
        (b"/?", b"/?"),
        (b"*", b"*"),
        (b"http://x/a?b", b"/a?b"),
        (b"HTTPS://x:1", b"/"),
        (b"http://x?b", b"/?b"),
    ],
)
def test_targets(target: bytes, own: bytes) -> None:
    head, _ = read(b"OPTIONS %b HTTP/1.1\r\nhost: x\r\n\r\n" % target)
    assert head.target == own


def test_limits() -> None:
    longest = b"/" + b"a" * (MAX_TARGET_BYTES - 1)
    head, _ = read(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % longest)
    assert head.target == longest
    with pytest.raises(TargetTooLong):
        HeadReader().feed(b"GET " + longest + b"a")
    with pytest.raises(HeadersTooLarge):
        HeadReader().feed(b"GET / HTTP/1.1\r\nx: " + b"a" * MAX_HEADER_BYTES)
