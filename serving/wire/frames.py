"""The link between a router and an engine replica: one TCP connection, many requests.

A frame is a header of nine bytes, little endian, and a payload:

    length of the payload   uint32
    kind                    uint8    one of `Kind`
    stream                  uint32   the request's number on this link; 0 is the link itself

One connection carries all requests of one router to one replica, so what an engine step makes for
all of them leaves in one `write` and arrives in one `read`; HTTP would cost a system call per
token and hop. A DATA frame holds final bytes of the client's response; the router never parses it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

HEADER = struct.Struct("<IBI")
HEADER_SIZE = HEADER.size
# Above the largest request body that the settings allow; no peer of ours sends a longer frame.
MAX_PAYLOAD = 64 * 1024 * 1024


class Kind(enum.IntEnum):
    """What a frame says. Routers send the first group, replicas the second."""

    HELLO = 1
    OPEN = 2  # uint32 length of the JSON call, the call, the body
    CANCEL = 3
    PART = 4  # a part of the body of the call that is opened next with this number
    ALLOW = 5  # how far a call may go, in answer to SPENT

    WELCOME = 16
    HEAD = 17
    DATA = 18
    END = 19
    FAIL = 20
    LOAD = 21
    # Of the link: fingerprints of the requests that the engine died of, and of those that ran in
    # the step that it died in, if it cannot tell of which.
    SUSPECTS = 22
    DOUBTS = 23
    SPENT = 24  # of a call with an allowance, what it has used so far


class FrameError(Exception):
    """The other side does not speak this protocol; the connection must be closed."""


def frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """One encoded frame."""
    return HEADER.pack(len(payload), kind, stream) + payload


def open_payload(call: bytes, body: bytes) -> bytes:
    """The payload of an OPEN frame: the encoded call and the HTTP body it belongs to."""
    return len(call).to_bytes(4, "little") + call + body


def split_open(payload: bytes) -> tuple[bytes, bytes]:
    """The encoded call and the body of an OPEN frame.

    Raises:
        FrameError: the payload is shorter than it says.
    """
    if len(payload) < 4:
        raise FrameError("an OPEN frame without a call")
    end = 4 + int.from_bytes(payload[:4], "little")
    if len(payload) < end:
        raise FrameError("an OPEN frame that ends inside its call")
    return payload[4:end], payload[end:]


class FrameReader:
    """Cuts a byte stream into frames. One per connection.

    `max_payload` may be raised later: until a peer has said who it is, its frames must be small.
    """

    __slots__ = ("_buffered", "_missing", "_parts", "max_payload")

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        # The pieces of a frame that is not complete yet. They are joined once, at its end: a
        # request with images has megabytes, and joining at every piece would copy it a hundred
        # times.
        self._parts: list[bytes] = []
        self._buffered = 0
        self._missing = 0
        self.max_payload = max_payload

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The (kind, stream, payload) of every frame completed by `data`.

        Raises:
            FrameError: a frame announces more than `max_payload` bytes.
        """
        buffer = data
        if self._parts:
            self._parts.append(data)
            self._buffered += len(data)
            if self._buffered < self._missing:
                return
            buffer = b"".join(self._parts)
            self._parts.clear()
        size = len(buffer)
        at = end = 0
        unpack = HEADER.unpack_from
        try:
            while size - at >= HEADER_SIZE:
                length, kind, stream = unpack(buffer, at)
                if length > self.max_payload:
                    raise FrameError(f"a frame of {length} bytes")
                end = at + HEADER_SIZE + length
                if end > size:
                    break
                payload = buffer[at + HEADER_SIZE : end]
                at = end
                yield kind, stream, payload
        finally:
            if at < size:
                self._parts.append(buffer[at:] if at else buffer)
                self._buffered = size - at
                self._missing = max(end - at, HEADER_SIZE)
