"""Where the body of a request ends: after so many bytes, or after its last chunk (RFC 9112,
sections 6 and 7).

A decoder gets bytes as they come and says what of them is body. Chunks are read strictly: lines end
in CRLF, sizes are hexadecimal digits and nothing else, and extensions and trailers, which nobody
here reads, are dropped and bounded.
"""

from __future__ import annotations

import re

from serving.errors import BodyTooLarge, HeadersTooLarge, InvalidRequest

# A chunk's line: its size and extensions.
MAX_LINE_BYTES = 4 * 1024
# All trailers.
MAX_TRAILER_BYTES = 16 * 1024
# Of a chunk's size; 15 hexadecimal digits are 60 bits.
MAX_SIZE_DIGITS = 15
# What lines may have more than the data they announce (twice that, and 16 bytes a chunk), before
# the body is nothing but lines.
MAX_EXCESS_BYTES = 16 * 1024

# A body of many chunks has to have so many bytes in each, on average: a chunk costs the event loop
# half a microsecond, and a read from the socket could hold 43,000 of one byte.
MANY_CHUNKS = 4096
MIN_MEAN_BYTES = 16

# The lines of small chunks, which are the ones that come in numbers.
_SMALL = {form % size: size for size in range(1, 1024) for form in (b"%x", b"%X")}
_PLAIN_SIZE = re.compile(rb"[0-9a-fA-F]+")
_SIZE = re.compile(rb"([0-9a-fA-F]+)(?:;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t -~\x80-\xff]*")
# They say where a message ends and for whom it is, and no trailer may (RFC 9110, section 6.5.1).
_NO_TRAILERS = frozenset((b"content-length", b"host", b"transfer-encoding"))


class Counted:
    """A body of a known length, in bytes."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` is body, and what comes after the body's end."""
        if len(data) <= self._left:
            self._left -= len(data)
            return data, b""
        body, rest = data[: self._left], data[self._left :]
        self._left = 0
        return body, rest


class Chunked:
    """A body in chunks."""

    __slots__ = (
        "_bytes",
        "_chunks",
        "_excess",
        "_in_trailers",
        "_kept",
        "_left",
        "_trailer_bytes",
        "done",
    )

    def __init__(self) -> None:
        self.done = False
        # A line, or the CRLF after a chunk, of which the rest has not come.
        self._kept = b""
        # Bytes of the chunk that are still to come, with the CRLF after it; 0 between chunks.
        self._left = 0
        self._in_trailers = False
        self._trailer_bytes = 0
        self._excess = 0
        self._chunks = 0
        self._bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` is body, and what comes after the body's end.

        Raises:
            InvalidRequest: these are no chunks.
            BodyTooLarge: a chunk of more than 60 bits.
            HeadersTooLarge: too many trailers.
        """
        if self._kept:
            data = self._kept + data
            self._kept = b""
        parts: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._left:
                at = self._chunk(data, at, parts)
                if self._left:
                    break
                continue
            end = data.find(b"\r\n", at, at + MAX_LINE_BYTES)
            if end < 0:
                self._check_unfinished(data[at:])
                break
            line = data[at:end]
            at = end + 2
            if self._in_trailers:
                self._trailer(line)
                continue
            small = _SMALL.get(line)
            if small is None:
                self._size(line)
            elif data[at + small : at + small + 2] == b"\r\n":  # all of it is here
                parts.append(data[at : at + small])
                at += small + 2
                self._count(small)
            else:
                self._left = small + 2
                self._count(small)
        self._kept, rest = (b"", data[at:]) if self.done else (data[at:], b"")
        return b"".join(parts), rest

    def _chunk(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """Take what has come of a chunk and of the CRLF after it; returns where it ends."""
        if self._left > 2:
            part = data[at : at + self._left - 2]
            parts.append(part)
            at += len(part)
            self._left -= len(part)
            if self._left > 2:
                return at
        after = data[at : at + 2]
        if not b"\r\n".startswith(after):
            raise InvalidRequest("a chunk of the body is longer than its size says")
        if len(after) == 2:
            self._left = 0
            at += 2
        return at

    def _count(self, length: int) -> None:
        self._chunks += 1
        self._bytes += length
        if self._chunks > MANY_CHUNKS and self._bytes < self._chunks * MIN_MEAN_BYTES:
            raise InvalidRequest(
                f"the body has more than {MANY_CHUNKS} chunks of fewer than {MIN_MEAN_BYTES} bytes "
                "on average; send larger ones"
            )

    def _size(self, line: bytes) -> None:
        if _PLAIN_SIZE.fullmatch(line):
            digits = line
        else:
            match = _SIZE.fullmatch(line)
            if match is None:
                raise InvalidRequest("the size of a chunk of the body is no hexadecimal number")
            digits = match[1]
        if len(digits) > MAX_SIZE_DIGITS:
            digits = digits.lstrip(b"0")
            if len(digits) > MAX_SIZE_DIGITS:
                raise BodyTooLarge("a chunk of the body is larger than 60 bits can say")
        length = int(digits or b"0", 16)
        self._excess = max(0, self._excess + len(line) - 16 - 2 * length)
        if self._excess > MAX_EXCESS_BYTES:
            raise InvalidRequest("the body's chunks have more extensions than data")
        if length:
            self._left = length + 2
            self._count(length)
        else:
            self._in_trailers = True

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise HeadersTooLarge(f"the trailers have more than {MAX_TRAILER_BYTES} bytes")
        field = _TRAILER.fullmatch(line)
        if field is None:
            raise InvalidRequest("after the body's last chunk comes neither a trailer nor its end")
        if field[1].lower() in _NO_TRAILERS:
            raise InvalidRequest("a trailer names the body's length or the host")

    def _check_unfinished(self, line: bytes) -> None:
        """A line that has no end yet must still be able to become one."""
        if len(line) >= MAX_LINE_BYTES:
            if self._in_trailers:
                raise HeadersTooLarge(f"a trailer has more than {MAX_LINE_BYTES} bytes")
            raise InvalidRequest(f"a chunk's line has more than {MAX_LINE_BYTES} bytes")
        if b"\n" in line or b"\r" in line[:-1]:
            raise InvalidRequest("a line of the chunked body does not end in CRLF")
