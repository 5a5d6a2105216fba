"""Where a body ends, however it is cut into reads."""

from __future__ import annotations

import pytest

from serving.errors import InvalidRequest
from serving.http.body import MANY_CHUNKS, MIN_MEAN_BYTES, Chunked, Counted

CHUNKS = (
    b'5\r\nabcde\r\n3;x="y"\r\n\r\n\r\r\n0a\r\n0\r\n\r\n12345\r\n400\r\n%b\r\n00\r\na: b\r\n\r\n'
    % (b"z" * 1024)
)
BODY = b"abcde\r\n\r0\r\n\r\n12345" + b"z" * 1024
REST = b"GET / HTTP/1.1\r\n"


def test_chunks_cut_anywhere() -> None:
    for at in range(len(CHUNKS) + 1):
        for step in (1, 3, 5000):
            decoder, body, rest = Chunked(), b"", b""
            data = CHUNKS + REST
            parts = [data[:at], *(data[i : i + step] for i in range(at, len(data), step))]
            for part in parts:
                if decoder.done:
                    rest += part
                    continue
                got, rest = decoder.feed(part)
                body += got
            assert (body, rest, decoder.done) == (BODY, REST, True), (at, step)


def test_what_is_unfinished_is_not_done() -> None:
    for at in range(len(CHUNKS)):
        decoder = Chunked()
        body, rest = decoder.feed(CHUNKS[:at])
        assert BODY.startswith(body)
        assert (rest, decoder.done) == (b"", False)


@pytest.mark.parametrize("size", [b"5", b"05", b"00000000000000000005", b"5;", b"5; a=b"])
def test_ways_to_say_five(size: bytes) -> None:
    decoder = Chunked()
    assert decoder.feed(size + b"\r\nabcde\r\n0\r\n\r\nx") == (b"abcde", b"x")
    assert decoder.done


def test_many_chunks_have_to_be_of_some_size() -> None:
    enough = b"%x\r\n%b\r\n" % (MIN_MEAN_BYTES, b"x" * MIN_MEAN_BYTES)
    body, _ = Chunked().feed(enough * (2 * MANY_CHUNKS))
    assert len(body) == 2 * MANY_CHUNKS * MIN_MEAN_BYTES
    few = Chunked()
    few.feed(b"1\r\nx\r\n" * MANY_CHUNKS)
    with pytest.raises(InvalidRequest, match="send larger ones"):
        few.feed(b"1\r\nx\r\n")


def test_a_length_cut_anywhere() -> None:
    for at in range(11):
        decoder = Counted(5)
        first, rest = decoder.feed(b"abcdefghij"[:at])
        assert (first, rest) == (b"abcde"[:at], b"abcdefghij"[5:at])
        if not decoder.done:
            assert decoder.feed(b"abcdefghij"[at:]) == (b"abcde"[at:], b"fghij")
        assert decoder.done
