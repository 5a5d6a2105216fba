"""Compressed bodies: what comes out, and what is refused, within the limit."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc

import pytest
from backports import zstd

from serving.errors import BodyTooLarge, InvalidRequest, ServingError, UnsupportedEncoding
from serving.http.encodings import MAX_STREAMS, Decoding, decoded

LIMIT = 1 << 20
TEXT = b'{"model": "m", "prompt": "Once upon a time"}'
CODINGS = [("gzip", gzip.compress), ("zstd", zstd.compress)]


def decode(body: bytes, encoding: str, limit: int = LIMIT) -> bytes:
    return asyncio.run(decoded(body, encoding.encode(), limit))


@pytest.mark.parametrize(("name", "compress"), CODINGS)
def test_what_was_compressed_comes_out(name: str, compress: object) -> None:
    for text in (b"", TEXT, TEXT * 5000, bytes(range(256)) * 4096):
        body = compress(text)  # type: ignore[operator]
        assert decode(body, name) == text
        assert decode(body + compress(TEXT[:9]), name, LIMIT + 9) == text + TEXT[:9]  # type: ignore[operator]
        assert decode(body, name.upper() + " ") == text


@pytest.mark.parametrize("encoding", ["", "identity", " Identity"])
def test_what_is_not_compressed_stays(encoding: str) -> None:
    assert decode(TEXT, encoding) == TEXT


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "gzip, gzip", "gzip,zstd", "\xff", "x" * 9999]
)
def test_an_unknown_coding_is_named(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding) as caught:
        asyncio.run(decoded(TEXT, encoding.encode("latin-1"), LIMIT))
    assert "gzip, zstd or none" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.status == 415


@pytest.mark.parametrize(("name", "compress"), CODINGS)
def test_what_is_not_as_it_says_is_refused(name: str, compress: object) -> None:
    whole = compress(TEXT * 100)  # type: ignore[operator]
    broken = [b"", TEXT, whole[:-1], whole[:4], whole + b"x", whole + whole[:9]]
    broken.append(whole[:-20] + bytes(20))
    for body in broken:
        with pytest.raises(InvalidRequest):
            decode(body, name)


@pytest.mark.parametrize(("name", "compress"), CODINGS)
def test_the_limit_is_that_of_the_decoded_body(name: str, compress: object) -> None:
    assert len(decode(compress(b"a" * LIMIT), name)) == LIMIT  # type: ignore[operator]
    bomb = compress(bytes(200 * LIMIT))  # type: ignore[operator]
    for body in (compress(b"a" * (LIMIT + 1)), bomb, compress(TEXT) + bomb):  # type: ignore[operator]
        tracemalloc.start()
        with pytest.raises(BodyTooLarge):
            decode(body, name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * LIMIT


@pytest.mark.parametrize(("name", "compress"), CODINGS)
def test_many_streams_cost_little(name: str, compress: object) -> None:
    """Each could have the rest of the body copied."""
    one: bytes = compress(b"a")  # type: ignore[operator]
    assert decode(one * MAX_STREAMS, name) == b"a" * MAX_STREAMS
    body = one * (8 * LIMIT // len(one))
    started = time.process_time()
    with pytest.raises(InvalidRequest, match="streams"):
        decode(body, name)
    assert time.process_time() - started < 1


def test_a_window_that_takes_much_memory_is_refused() -> None:
    options = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.compression_level: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(bytes(range(256)) * (1 << 17)) + compressor.flush()
    with pytest.raises(ServingError):
        decode(body, "zstd", 64 * LIMIT)


async def test_the_event_loop_goes_on() -> None:
    body = gzip.compress(bytes(64 * LIMIT))
    decoding = asyncio.create_task(decoded(body, b"gzip", 65 * LIMIT))
    longest, last = 0.0, time.monotonic()
    while not decoding.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert len(await decoding) == 64 * LIMIT
    assert longest < 0.1


@pytest.mark.parametrize(("name", "compress"), CODINGS)
@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_in_pieces_nothing_is_larger_than_it_may_be(name: str, compress: object, size: int) -> None:
    text = bytes(range(256)) * 1000 + bytes(100_000)
    body = compress(text) + compress(TEXT)  # type: ignore[operator]
    decoding = Decoding(name, len(text) + len(TEXT))
    parts = [
        part for at in range(0, len(body), size) for part in decoding.feed(body[at : at + size], 99)
    ]
    decoding.close()
    assert b"".join(parts) == text + TEXT
    assert max(map(len, parts)) <= 99
    decoding = Decoding(name, len(text) + len(TEXT) - 1)
    with pytest.raises(BodyTooLarge):
        list(decoding.feed(body, 99))
