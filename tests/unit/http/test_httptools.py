"""What `serving/http/head.py` takes for granted of httptools and the llhttp in it.

That llhttp refuses whatever can be read in two ways is held by
`tests/gateway/test_http_ambiguous.py`.
"""

from __future__ import annotations

import httptools
import pytest


class Events:
    """What the parser calls, in order."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self.called.append("begin")

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.called.append("headers")

    def on_body(self, body: bytes) -> None:
        self.called.append("body")


HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX: a b\r\n\r\n"


def test_a_head_split_anywhere_is_the_same_head() -> None:
    for at in range(len(HEAD)):
        events = Events()
        parser = httptools.HttpRequestParser(events)
        parser.feed_data(HEAD[:at])
        assert "headers" not in events.called
        parser.feed_data(HEAD[at:])
        assert events.called == ["begin", "headers"]
        assert events.url == b"/a"
        assert events.headers == [(b"Host", b"x"), (b"Content-Length", b"5"), (b"X", b"a b")]


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"X: a b", b"Connection: upgrade\r\nUpgrade: h2c"),
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_an_upgrade_is_raised_after_the_headers(head: bytes) -> None:
    events = Events()
    parser = httptools.HttpRequestParser(events)
    parser.feed_data(head[:-1])
    assert events.called == ["begin"]
    with pytest.raises(httptools.HttpParserUpgrade):
        parser.feed_data(head[-1:])
    assert events.called == ["begin", "headers"]


def test_what_a_callback_raises_stops_the_parser() -> None:
    class Refusing(Events):
        def on_url(self, url: bytes) -> None:
            raise ValueError(url)

    with pytest.raises(httptools.HttpParserError):
        httptools.HttpRequestParser(Refusing()).feed_data(HEAD)


def test_the_reason_for_a_length_too_long() -> None:
    head = HEAD.replace(b": 5", b": " + b"9" * 30)
    with pytest.raises(httptools.HttpParserError, match=r"^Content-Length overflow$"):
        httptools.HttpRequestParser(Events()).feed_data(head)
