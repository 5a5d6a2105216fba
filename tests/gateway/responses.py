"""Reads what a server said on one connection, and fails where it is not HTTP."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z -]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9a-z-]+): ([\t -~\x80-\xff]*)")
# What a client can be told about the bytes it sent.
REFUSALS = frozenset((400, 405, 408, 411, 413, 414, 417, 431, 501, 505))


@dataclass(frozen=True)
class Said:
    """One response. `whole`: its body has an end of its own, and that end has come."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"

    def check_refusal(self) -> None:
        """An error of the listener: in the envelope, with its ID, the last of its connection."""
        assert self.status in REFUSALS, self
        error = self.json["error"]
        assert error["message"]
        assert error["request_id"] == self.headers["x-request-id"]
        assert self.headers["x-should-retry"] == "false"
        assert self.closes, self


def responses(data: bytes) -> list[Said]:
    """All responses in `data`; interim ones (100) are left out. Only the last may be unfinished."""
    found: list[Said] = []
    while data:
        assert not found or (found[-1].whole and not found[-1].closes), f"more came: {data[:200]!r}"
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank, f"no end of the headers: {head[:200]!r}"
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        assert status is not None, f"no status line: {first[:200]!r}"
        headers: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            assert field is not None, f"no header: {line[:200]!r}"
            name = field[1].decode()
            assert name not in headers, f"{name} twice"
            headers[name] = field[2].decode("latin-1")
        code = int(status[1])
        if code == 100:
            assert not headers
            continue
        assert "date" in headers
        if "content-length" in headers:
            assert "transfer-encoding" not in headers
            length = int(headers["content-length"])
            body, data, whole = data[:length], data[length:], len(data) >= length
        elif "transfer-encoding" in headers:
            assert headers["transfer-encoding"] == "chunked"
            body, data, whole = _chunks(data)
        else:
            assert headers["connection"] == "close"
            body, data, whole = data, b"", False
        found.append(Said(code, headers, body, whole))
    return found


def _chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while True:
        line, end, rest = data.partition(b"\r\n")
        if not end:
            return body, b"", False
        size = int(line, 16)
        if len(rest) < size + 2:
            return body + rest[:size], b"", False
        assert rest[size : size + 2] == b"\r\n", f"a chunk does not end: {rest[size:][:50]!r}"
        body, data = body + rest[:size], rest[size + 2 :]
        if not size:
            return body, data, True
