"""The head of a request: its line and headers, read strictly (RFC 9112, RFC 9110).

llhttp (through httptools, without its leniencies) parses the bytes. It gets each head alone, so
that nothing after the blank line can reach it: whatever it makes of `Upgrade` or `CONNECT`, where
the body begins and how long it is are decided here, once. A head that two servers could read in
two ways is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httptools

from serving.errors import (
    BodyTooLarge,
    ExpectationFailed,
    HeadersTooLarge,
    InvalidRequest,
    LengthRequired,
    MethodNotAllowed,
    ServingError,
    TargetTooLong,
    UnsupportedCoding,
    UnsupportedVersion,
)

# Far above the app's own limit, whose error has the caller's request ID. This one only keeps
# endless headers out of memory.
MAX_HEADER_BYTES = 64 * 1024
# Of a path with its query. RFC 9112, section 3, asks for at least 8,000.
MAX_TARGET_BYTES = 8 * 1024

_BLANK_LINE = b"\r\n\r\n"
_LINE = re.compile(rb"[\r\n]*[A-Z-]+ ([!-~]+) HTTP/1\.[01]\r\n")
_VERSION = re.compile(rb"[\r\n]*[A-Z-]+ [!-~]+ HTTP/([0-9.]+)")
# What of a version may still become one of ours.
_OUR_VERSIONS = (b"1", b"1.", b"1.0", b"1.1")
_ABSOLUTE = re.compile(rb"(?i:https?)://[^/?]+")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
# The headers that decide about the message; all others are passed on unread.
_DECISIVE = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"),
)
# A request with one of these methods has a body and has to say how long it is.
_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))


@dataclass(slots=True)
class Head:
    """A request's line and headers, names in lower case.

    `length` is that of the body in bytes, None if it is chunked. `expects_continue`: the client
    waits for `100 Continue` before it sends the body.
    """

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int | None
    keep_alive: bool
    expects_continue: bool


class HeadReader:
    """Reads one head; `head` is set once it is complete."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._raw = bytearray()
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._messages = 0
        self._fault: ServingError | None = None

    @property
    def begun(self) -> bool:
        """True once there is more than the empty lines that may stand before a request."""
        return bool(self._raw.strip(b"\r\n"))

    def feed(self, data: bytes) -> bytes:
        """Read on; what remains of `data` after the head is returned.

        Raises:
            ServingError: this is no request, or none that we take. The reader is of no more use.
        """
        while data:
            tail = bytes(self._raw[-(len(_BLANK_LINE) - 1) :])
            at = (tail + data).find(_BLANK_LINE)
            if at < 0:
                part, data = data, b""
            else:
                end = at + len(_BLANK_LINE) - len(tail)
                part, data = data[:end], data[end:]
            self._raw += part
            self._parse(part)
            if self.head is not None:
                self._parser = None  # it refers to this object: a circle
                return data
            if len(self._raw) > MAX_HEADER_BYTES:
                raise HeadersTooLarge(f"the headers have more than {MAX_HEADER_BYTES} bytes")
        return b""

    def _parse(self, part: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            pass  # RFC 9110, section 7.8: a server may ignore it, and the message goes on as HTTP
        except httptools.HttpParserError as error:
            self._parser = None
            raise self._fault or self._refusal(str(error)) from None
        if self._messages > 1:
            raise InvalidRequest(
                "not a valid HTTP request: its headers do not end in an empty line"
            )

    def _refusal(self, reason: str) -> ServingError:
        """Why llhttp refused; its reasons are fixed texts and repeat nothing of the request."""
        version = _VERSION.match(self._raw)
        if version is not None and version[1] not in _OUR_VERSIONS:
            return UnsupportedVersion("this server speaks HTTP/1.1 and HTTP/1.0")
        if reason == "Content-Length overflow":
            return BodyTooLarge("the length of the body has more than 64 bits")
        return InvalidRequest(f"not a valid HTTP request: {reason}")

    # called by httptools

    def on_message_begin(self) -> None:
        self._messages += 1

    def on_body(self, body: bytes) -> None:
        self._messages += 1  # llhttp sees the end of the headers before we do

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > MAX_TARGET_BYTES:
            self._fault = TargetTooLong(f"the URL has more than {MAX_TARGET_BYTES} bytes")
            raise self._fault

    def on_header(self, name: bytes, value: bytes) -> None:
        # The space after a value is none of it; llhttp leaves it there.
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        try:
            method = self._parser.get_method().decode("ascii")
            self.head = self._judge(method, self._parser.get_http_version())
        except ServingError as error:
            self._fault = error
            raise

    def _judge(self, method: str, version: str) -> Head:
        """The head, if there is only one way to read it."""
        line = _LINE.match(self._raw)
        if line is None:
            raise self._refusal("the request line")
        values: dict[bytes, list[bytes]] = {}
        for name, value in self._headers:
            if name in _DECISIVE:
                values.setdefault(name, []).append(value)
        hosts = values.get(b"host", [])
        if len(hosts) > 1 or (version == "1.1" and not hosts):
            raise InvalidRequest("a request needs one Host header")
        if hosts and _HOST.fullmatch(hosts[0]) is None:
            raise InvalidRequest("the Host header is no host")
        length = self._length(values, method, version)
        tokens = _tokens(values.get(b"connection", []))
        if version == "1.0":
            keep_alive = b"keep-alive" in tokens and b"close" not in tokens
        else:
            keep_alive = b"close" not in tokens
        expects = values.get(b"expect") if version == "1.1" else None
        if expects and any(value.lower() != b"100-continue" for value in expects):
            raise ExpectationFailed("the only expectation that is met here is 100-continue")
        target = _own_target(method, line[1])
        return Head(method, target, version, self._headers, length, keep_alive, bool(expects))

    def _length(self, values: dict[bytes, list[bytes]], method: str, version: str) -> int | None:
        """RFC 9112, section 6.3."""
        lengths = values.get(b"content-length", [])
        codings = _tokens(values.get(b"transfer-encoding", []))
        if b"transfer-encoding" in values:
            if lengths:
                raise InvalidRequest("Content-Length and Transfer-Encoding exclude each other")
            if version == "1.0":
                raise InvalidRequest("HTTP/1.0 has no Transfer-Encoding; send Content-Length")
            if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
                raise InvalidRequest("a Transfer-Encoding has to end in one 'chunked'")
            if len(codings) > 1:
                raise UnsupportedCoding("the only Transfer-Encoding that is taken is 'chunked'")
            return None
        if not lengths:
            if method in _WITH_BODY:
                raise LengthRequired(f"a {method} needs Content-Length, or chunked encoding")
            return 0
        value = lengths[0]
        if len(lengths) > 1 or not value.isdigit():
            raise InvalidRequest("Content-Length has to be one number")
        # llhttp has refused what does not fit 64 bits; Python refuses to read long rows of zeros.
        length = int(value.lstrip(b"0") or b"0")
        plain = (b"content-length", str(length).encode())
        self._headers = [plain if at[0] == plain[0] else at for at in self._headers]
        return length


def _tokens(values: list[bytes]) -> list[bytes]:
    """The elements of a comma-separated header, in lower case."""
    return [token.strip(b" \t").lower() for value in values for token in value.split(b",")]


def _own_target(method: str, target: bytes) -> bytes:
    """Path and query of a request target, which may also be a whole URL (RFC 9112, section 3.2).

    Raises:
        MethodNotAllowed: CONNECT.
        InvalidRequest: no path.
    """
    if method == "CONNECT":
        raise MethodNotAllowed("CONNECT is for proxies, and this server is none")
    if b"#" in target:
        raise InvalidRequest("a URL is sent without its fragment (#...)")
    if target.startswith(b"/") or target == b"*":
        return target
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise InvalidRequest("the URL in the request line has to be a path")
    rest = target[absolute.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest
