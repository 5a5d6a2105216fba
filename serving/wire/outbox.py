"""Frames on their way out of one end of a link."""

from __future__ import annotations

import asyncio

from serving.wire.frames import frame


class Outbox:
    """Collects the frames of one turn of the event loop and writes them together.

    An engine step that yields a token for each of 64 streams costs one system call, not 64. What is
    sent while there is no connection is dropped.
    """

    __slots__ = ("_frames", "_loop", "_transport")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None

    def open(self, transport: asyncio.WriteTransport) -> None:
        """Write to `transport` from now on; frames of an earlier connection are forgotten."""
        self._transport = transport
        self._frames.clear()

    def close(self) -> None:
        """The connection is gone."""
        self._transport = None

    def send(self, kind: int, stream: int, payload: bytes = b"") -> None:
        """Send one frame at the end of this turn of the event loop."""
        if not self._frames:
            self._loop.call_soon(self._flush)
        self._frames.append(frame(kind, stream, payload))

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if frames and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(frames))
