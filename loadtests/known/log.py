"""What the known server did, and when: the truth that measurements are held against.

Times are of CLOCK_MONOTONIC, taken right before the bytes were handed to the kernel.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class Served(msgspec.Struct):
    """One request as the server saw it. Its ID is its place in the log."""

    arrived: float  # its last byte was read
    events: list[float]  # when each event with text was sent
    ended: float = 0.0  # its last byte was sent, or its connection was ended
    end: str = ""  # how the script wanted it to end
    left: bool = False  # the client left before
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    path: str = ""


def write_log(path: Path, served: list[Served]) -> None:
    """Write the log, whole."""
    path.write_bytes(msgspec.msgpack.encode(served))


def read_log(path: Path) -> list[Served]:
    """Read a log that `write_log` has written."""
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Served])
