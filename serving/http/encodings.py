"""Bodies that a client has compressed (RFC 9110, section 8.4).

A compressed body may be a thousand times larger than what was sent, so it is decoded piece by piece
and given up at the limit, and not on the event loop: 32 MiB take 0.1 s.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from backports import zstd

from serving.api.excerpt import excerpt
from serving.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding

# Of what was sent, in bytes; what comes out of one is bounded by the limit.
PIECE_BYTES = 64 * 1024
# The rest of a piece is copied for each stream that begins in it.
MAX_STREAMS = 1000


class Decoder(Protocol):
    """What zlib and zstd have in common. `unused_data` is what follows the end of a stream."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class Decoding:
    """Decodes one body, piece by piece.

    Args:
        name: one of `DECODERS`.
        limit: of the decoded body, in bytes.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = self._room = limit
        self._streams = 0
        self._decoder: Decoder | None = None

    def feed(self, piece: bytes, most: int = 0) -> Iterator[bytes]:
        """What comes out of `piece`, in parts of at most `most` bytes; 0: in one.

        Raises:
            InvalidRequest: the body is not what its header says.
            BodyTooLarge: it is longer than the limit.
        """
        # A body may be several streams, one after the other (RFC 1952, section 2.2; RFC 8878, 3).
        while piece:
            if self._decoder is None:
                self._decoder = self._next_stream()
            decoder, given = self._decoder, piece
            while True:
                try:
                    part = decoder.decompress(given, min(most or self._room + 1, self._room + 1))
                except (zlib.error, zstd.ZstdError) as error:
                    raise InvalidRequest(f"the body is not {self._name}: {error}") from None
                self._room -= len(part)
                if self._room < 0:
                    raise BodyTooLarge(f"the body is larger than {self._limit} bytes when decoded")
                if part:
                    yield part
                if decoder.eof or not part:
                    break
                given = _rest(decoder)
            piece = b""
            if decoder.eof:
                piece, self._decoder = decoder.unused_data, None

    def close(self) -> None:
        """The body is complete.

        Raises:
            InvalidRequest: it ends inside a stream.
        """
        if self._decoder is not None or not self._streams:
            raise InvalidRequest(f"the body ends before its {self._name} stream does")

    def _next_stream(self) -> Decoder:
        self._streams += 1
        if self._streams > MAX_STREAMS:
            raise InvalidRequest(f"the body is more than {MAX_STREAMS} {self._name} streams")
        return DECODERS[self._name]()


def coding_of(encoding: bytes) -> str:
    """The one of `DECODERS` that a header Content-Encoding names; empty for none.

    Raises:
        UnsupportedEncoding: it is none of them, or several.
    """
    name = encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return ""
    if name not in DECODERS:
        raise UnsupportedEncoding(
            f"content-encoding '{excerpt(name)}' is not decoded here; send gzip, zstd or none"
        )
    return name


async def decoded(body: bytes, encoding: bytes, limit: int) -> bytes:
    """A body as it was before the client compressed it.

    Args:
        encoding: the header Content-Encoding.
        limit: of the decoded body, in bytes.

    Raises:
        UnsupportedEncoding: as `coding_of`.
        InvalidRequest, BodyTooLarge: as `Decoding`.
    """
    name = coding_of(encoding)
    return await asyncio.to_thread(_decode, body, name, limit) if name else body


def _decode(body: bytes, name: str, limit: int) -> bytes:
    decoding = Decoding(name, limit)
    parts = [
        part
        for at in range(0, len(body), PIECE_BYTES)
        for part in decoding.feed(body[at : at + PIECE_BYTES])
    ]
    decoding.close()
    return b"".join(parts)


def _rest(decoder: Decoder) -> bytes:
    """What a decoder has not taken because of `most`: zlib gives it back, zstd keeps it."""
    rest: bytes = getattr(decoder, "unconsumed_tail", b"")
    return rest


def _gzip() -> Decoder:
    return zlib.decompressobj(wbits=31)


def _zstd() -> Decoder:
    # RFC 9659 bounds the window of the coding "zstd" to 8 MiB.
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})


DECODERS: dict[str, Callable[[], Decoder]] = {"gzip": _gzip, "x-gzip": _gzip, "zstd": _zstd}
