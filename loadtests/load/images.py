"""Images of noise as `data:` URLs: no two alike, so that no cache spares a server the work."""

from __future__ import annotations

import base64
import struct
import zlib
from random import Random

NOISE = 65521


def noise(width: int, height: int, rng: Random) -> str:
    """Return the URL of a PNG in RGB (W3C PNG, third edition). 224 by 224 takes about 200 KB."""
    row = 1 + 3 * width
    size = row * height
    # To draw all of a large one would take tens of milliseconds.
    pixels = bytearray((rng.randbytes(NOISE) * (size // NOISE + 1))[:size])
    pixels[::row] = bytes(height)  # each row begins with its filter: none
    png = b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(pixels, 0)),  # noise gets no smaller
            _chunk(b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
