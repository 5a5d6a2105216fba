"""The body of a request, in memory or on disk, for whoever sends it, reads it or hashes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias

# Of one read from disk, and of one frame on a link, in bytes.
PIECE_BYTES = 256 * 1024


class OnDisk(Protocol):
    """A body that is too large for a router's memory. It can be read again and again, until the
    request ends."""

    def __len__(self) -> int: ...

    def read(self, at: int, size: int) -> bytes:
        """As many bytes from `at` on, fewer at the end.

        Raises:
            OSError, ValueError: the disk failed, or the request has ended.
        """


Body: TypeAlias = bytes | OnDisk


def pieces_of(body: Body) -> Iterator[bytes]:
    """The body from its start, in pieces; raises as `OnDisk.read`."""
    if isinstance(body, bytes):
        yield body
        return
    for at in range(0, len(body), PIECE_BYTES):
        yield body.read(at, PIECE_BYTES)


def whole(body: Body) -> bytes:
    """The body in memory; raises as `OnDisk.read`."""
    return body if isinstance(body, bytes) else b"".join(pieces_of(body))
