"""Random HTTP conversations: requests, right and wrong, as a client might send them on one
connection. The same seed makes the same conversation."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

_BODY = json.dumps({"model": "echo", "prompt": "one two three"}).encode()
_STREAM = json.dumps({"model": "echo", "prompt": "one two three", "stream": True}).encode()
_CHAT = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "hi"}]}).encode()
# What must never be taken for a request of its own.
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"

_PATHS = (b"/v4/completions", b"/v1/completions", b"/v1/chat/completions", b"/tokenize")
_PAGES = (b"/health", b"/v1/models", b"/v4/models/echo", b"/nothing", b"/ready?a=b", b"/%00", b"*")
_HEADERS = (
    b"content-length: 5",
    b"content-length: 0",
    b"content-length: 00000005",
    b"content-length: +5",
    b"content-length: 5, 5",
    b"content-length: 99999999999999999999",
    b"content-length : 5",
    b"content-length:5\t",
    b"content-length:",
    b"transfer-encoding: chunked",
    b"Transfer-Encoding: CHUNKED",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: identity",
    b"transfer-encoding: chunked, chunked",
    b"transfer-encoding:\x0bchunked",
    b"transfer-encoding\r\n: chunked",
    b"connection: close",
    b"connection: upgrade\r\nupgrade: h2c",
    b"connection: upgrade\r\nupgrade: websocket",
    b"expect: 100-continue",
    b"expect: something",
    b"host: y",
    b"x: a\r\n b",
    b" x: a",
    b"x",
    b": x",
    b"x: \0",
    b"x: \xff\xfe",
    b"x-request-id: " + b"i" * 200,
    b"x: " + b"a" * 20_000,
)
_TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"\x7f", b"\xff", b"\r\n\r\n"),
    *(b"0\r\n\r\n", b"5\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"1;a=b\r\n", b"0x5\r\n"),
    *(b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1", b"CONNECT ", b"POST ", b"http://x", b"#", b"%"),
    *(b"a" * 9000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", _SMUGGLED),
)


@dataclass(frozen=True)
class Conversation:
    """`parts` are sent one after the other; `leaves` is how the client ends it: it waits for what
    the server says ("waits"), or is gone with a FIN ("closes") or a RST ("resets")."""

    parts: tuple[bytes, ...]
    leaves: str

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)


def conversation(seed: int, *, leaving: bool = True) -> Conversation:
    """One to four requests, some of them spoiled, cut into parts anywhere."""
    rng = random.Random(seed)
    requests = [_request(rng) for _ in range(rng.choice((1, 1, 2, 3, 4)))]
    spoiled = [_spoil(rng, each) if rng.random() < 0.6 else each for each in requests]
    data = b"".join(spoiled)
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 5, 20))))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    leaves = rng.choice(("waits", "waits", "waits", "closes", "resets")) if leaving else "waits"
    return Conversation(tuple(part for part in parts if part), leaves)


def _request(rng: random.Random) -> bytes:
    version = b"HTTP/1.0" if rng.random() < 0.1 else b"HTTP/1.1"
    lines = [b"host: x"]
    if rng.random() < 0.9:
        lines.append(b"x-api-key: sk-any")
    if rng.random() < 0.2:
        lines.append(rng.choice(_HEADERS))
    if rng.random() < 0.4:
        return b"\r\n".join((b"GET %b %b" % (rng.choice(_PAGES), version), *lines, b"", b""))
    body = rng.choice((_BODY, _BODY, _STREAM, _CHAT, b"", b"{}", _SMUGGLED, b"\0" * 300))
    if rng.random() < 0.3:
        lines.append(b"transfer-encoding: chunked")
        body = _chunks(rng, body)
    else:
        lines.append(b"content-length: %d" % len(body))
    rng.shuffle(lines)
    line = b"POST %b %b" % (rng.choice(_PATHS), version)
    return b"\r\n".join((line, *lines, b"", b"")) + body


def _chunks(rng: random.Random, body: bytes) -> bytes:
    found = b""
    while body:
        size = rng.choice((1, 2, 7, 40, 1000))
        chunk, body = body[:size], body[size:]
        extension = rng.choice((b"", b"", b"", b";a", b'; a="b c"'))
        found += b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk)
    return found + b"0\r\n" + rng.choice((b"", b"", b"x: y\r\n")) + b"\r\n"


def _spoil(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 1, 2, 5, 40)))
        kind = rng.randrange(8)
        if kind == 0 and data:  # another byte
            data = data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
        elif kind == 1:  # something left out
            data = data[:at] + data[to:]
        elif kind == 2:  # something twice
            data = data[:to] + data[at:to] + data[to:]
        elif kind == 3:  # something put in
            data = data[:at] + rng.choice(_TOKENS) + data[at:]
        elif kind in (4, 5):  # one more header
            lines = data.split(b"\r\n")
            lines.insert(min(len(lines), rng.randrange(1, 5)), rng.choice(_HEADERS))
            data = b"\r\n".join(lines)
        elif kind == 6:  # broken off
            data = data[:at]
        else:  # two lines change places
            lines = data.split(b"\r\n")
            a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[a], lines[b] = lines[b], lines[a]
            data = b"\r\n".join(lines)
    return data
