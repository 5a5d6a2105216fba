"""Bodies that a client has compressed (RFC 9110, section 8.4).

A compressed body may be a thousand times larger than what was sent, so it is decoded piece by piece
and given up at the limit, and not on the event loop: 32 MiB take 0.1 s.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
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


async def decoded(body: bytes, encoding: bytes, limit: int) -> bytes:
    """A body as it was before the client compressed it.

    Args:
        encoding: the header Content-Encoding.
        limit: of the decoded body, in bytes.

    Raises:
        UnsupportedEncoding: it is none of `DECODERS`, or several.
        InvalidRequest: the body is not what the header says.
        BodyTooLarge: it is longer than `limit`.
    """
    name = encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return body
    if name not in DECODERS:
        raise UnsupportedEncoding(
            f"content-encoding '{excerpt(name)}' is not decoded here; send gzip, zstd or none"
        )
    return await asyncio.to_thread(_decode, body, name, limit)


def _decode(body: bytes, name: str, limit: int) -> bytes:
    parts: list[bytes] = []
    room, sent, streams, piece = limit, 0, 0, b""
    try:
        # A body may be several streams, one after the other (RFC 1952, section 2.2; RFC 8878, 3).
        while not streams or piece or sent < len(body):
            if (streams := streams + 1) > MAX_STREAMS:
                raise InvalidRequest(f"the body is more than {MAX_STREAMS} {name} streams")
            decoder = DECODERS[name]()
            while not decoder.eof:
                if not piece:
                    piece = body[sent : sent + PIECE_BYTES]
                    sent += len(piece)
                part = decoder.decompress(piece, room + 1)
                room -= len(part)
                if room < 0:
                    raise BodyTooLarge(f"the body is larger than {limit} bytes when decoded")
                parts.append(part)
                if not piece and not part and not decoder.eof:
                    raise InvalidRequest(f"the body ends before its {name} stream does")
                piece = b""
            piece = decoder.unused_data
    except (zlib.error, zstd.ZstdError) as error:
        raise InvalidRequest(f"the body is not {name}: {error}") from None
    return b"".join(parts)


def _gzip() -> Decoder:
    return zlib.decompressobj(wbits=31)


def _zstd() -> Decoder:
    # RFC 9659 bounds the window of the coding "zstd" to 8 MiB.
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})


DECODERS: dict[str, Callable[[], Decoder]] = {"gzip": _gzip, "x-gzip": _gzip, "zstd": _zstd}
