from __future__ import annotations

import time

import pytest

from serving.wire.frames import (
    HEADER,
    MAX_PAYLOAD,
    FrameError,
    FrameReader,
    Kind,
    frame,
    open_payload,
    split_open,
)

FRAMES = [
    (Kind.HELLO, 0, b"{}"),
    (Kind.OPEN, 1, b"call and body"),
    (Kind.CANCEL, 0, b""),
    (Kind.DATA, 2**32 - 1, bytes(range(256))),
    (Kind.END, 7, b""),
]
WIRE = b"".join(frame(*item) for item in FRAMES)


def test_every_split_in_two() -> None:
    for at in range(len(WIRE) + 1):
        reader = FrameReader()
        assert [*reader.feed(WIRE[:at]), *reader.feed(WIRE[at:])] == FRAMES


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 10, 100, 10_000])
def test_every_piece_size(size: int) -> None:
    reader = FrameReader()
    pieces = [WIRE[at : at + size] for at in range(0, len(WIRE), size)]
    assert [found for piece in pieces for found in reader.feed(piece)] == FRAMES


def test_a_frame_as_large_as_allowed_is_waited_for() -> None:
    reader = FrameReader()
    assert list(reader.feed(HEADER.pack(MAX_PAYLOAD, Kind.DATA, 1))) == []


def test_an_oversize_frame_is_refused_before_it_arrives() -> None:
    reader = FrameReader()
    feed = reader.feed(frame(Kind.CANCEL, 0) + HEADER.pack(MAX_PAYLOAD + 1, Kind.DATA, 1))
    assert next(feed) == (Kind.CANCEL, 0, b"")
    with pytest.raises(FrameError, match=str(MAX_PAYLOAD + 1)):
        next(feed)


@pytest.mark.parametrize(("call", "body"), [(b"", b""), (b"{}", b""), (b"{}", b"\x00" * 70_000)])
def test_open_round_trip(call: bytes, body: bytes) -> None:
    assert split_open(open_payload(call, body)) == (call, body)


@pytest.mark.parametrize("payload", [b"", b"\x01\x00\x00", b"\x03\x00\x00\x00ab"])
def test_a_short_open_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        split_open(payload)


def test_a_long_frame_in_many_pieces_is_joined_once() -> None:
    """Joined at every piece, these would be copied a thousand times over, which takes seconds."""
    payload = bytes(16 * 1024 * 1024)
    wire = frame(Kind.OPEN, 1, payload) + frame(Kind.CANCEL, 0)
    reader = FrameReader()
    started = time.process_time()
    found = [item for at in range(0, len(wire), 4096) for item in reader.feed(wire[at : at + 4096])]
    assert time.process_time() - started < 1
    assert found == [(Kind.OPEN, 1, payload), (Kind.CANCEL, 0, b"")]
