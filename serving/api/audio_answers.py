"""How an engine's answer about a recording is written where its OpenAI app does not write it as
OpenAI does.

vLLM 0.32 answers `response_format: text` with JSON, and streams events of its own
(`transcription.chunk`) that OpenAI's clients do not know. An event here has the fields of both, so
clients of either read it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serving.api.said import Said
from serving.wire.messages import Head, HttpCall

TEXT_FORM, EVENTS_FORM = "audio_text", "audio_events"
_TEXT_HEAD = Head(200, (("content-type", "text/plain; charset=utf-8"),))
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class TextAnswer:
    """What was said and nothing else."""

    names: dict[str, str] = {}  # noqa: RUF012 - nobody writes to it
    head = _TEXT_HEAD

    def __init__(self, call: HttpCall, body: bytes) -> None:
        pass

    def event(self, said: Said) -> bytes:
        """It has no events."""
        return b""

    def end(self) -> bytes:
        """See `event`."""
        return b""

    def whole(self, said: Said) -> bytes:
        """A line, as OpenAI ends it."""
        return f"{said.text}\n".encode()


class TranscriptEvents:
    """Makes OpenAI's events of the engine's: `transcript.text.delta`, and `transcript.text.done`
    with all of the text."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._last: dict[str, Any] = {}

    def event(self, data: bytes) -> bytes:
        """The data of an event for that of one of the engine's."""
        chunk = _decode(data)
        delta = "".join(one["delta"].get("content") or "" for one in chunk["choices"])
        self._said.append(delta)
        self._last = {**chunk, "choices": []}
        return _encode({"type": "transcript.text.delta", "delta": delta, **chunk})

    def end(self) -> bytes:
        """The data of the last event."""
        done = {"type": "transcript.text.done", "text": "".join(self._said)}
        return _encode({**done, **self._last})
