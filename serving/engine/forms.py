"""Replies that stand between an engine's OpenAI app and the caller, and write what the app says in
another form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from serving.api.audio_answers import TranscriptEvents
from serving.api.said import Said, decode_said
from serving.engine.interface import Reply
from serving.errors import ServingError
from serving.wire.messages import SSE_HEAD, Head

_DONE = b"data: [DONE]\n\n"
_MARK = b"[DONE]"


class Form(Protocol):
    """How one answer is written; an event, or the end of a stream, may need no bytes. `names` are
    what fields of the OpenAI body are called in the caller's, `head` is that of a whole answer."""

    @property
    def head(self) -> Head: ...

    @property
    def names(self) -> Mapping[str, str]: ...

    def event(self, said: Said) -> bytes: ...

    def end(self) -> bytes: ...

    def whole(self, said: Said) -> bytes: ...


class Unmarked:
    """A reply whose stream loses its end mark.

    No event can end like the mark: the JSON of an event ends in a brace.
    """

    __slots__ = ("_reply",)

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def writable(self) -> bool:
        return self._reply.writable

    def head(self, head: Head) -> None:
        self._reply.head(head)

    def data(self, data: bytes) -> None:
        if data.endswith(_DONE):
            data = data[: -len(_DONE)]
        if data:
            self._reply.data(data)

    async def drained(self) -> None:
        await self._reply.drained()


class Transcribed:
    """A reply whose stream is that of a recording's text. The app writes whole events."""

    __slots__ = ("_events", "_reply")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._events = TranscriptEvents()

    @property
    def writable(self) -> bool:
        return self._reply.writable

    def head(self, head: Head) -> None:
        self._reply.head(head)

    def data(self, data: bytes) -> None:
        self._reply.data(b"".join(self._write(frame) for frame in data.split(b"\n\n") if frame))

    def _write(self, frame: bytes) -> bytes:
        said = frame.removeprefix(b"data: ")
        if said == _MARK:
            return b"data: %b\n\n%b" % (self._events.end(), _DONE)
        return b"data: %b\n\n" % self._events.event(said)

    async def drained(self) -> None:
        await self._reply.drained()


class Rewritten:
    """A reply in a form of its own. The app's events may come in pieces of any size."""

    __slots__ = ("_form", "_left", "_reply", "_streams")

    def __init__(self, reply: Reply, form: Form) -> None:
        self._reply = reply
        self._form = form
        self._streams = False
        self._left = b""

    @property
    def writable(self) -> bool:
        return self._reply.writable

    def head(self, head: Head) -> None:
        self._streams = any(
            name.lower() == "content-type" and value.startswith("text/event-stream")
            for name, value in head.headers
        )
        self._reply.head(SSE_HEAD if self._streams else self._form.head)

    def data(self, data: bytes) -> None:
        self._left += data
        if not self._streams:
            return
        *frames, self._left = self._left.split(b"\n\n")
        if written := b"".join(map(self._write, frames)):
            self._reply.data(written)

    def _write(self, frame: bytes) -> bytes:
        if not frame.startswith(b"data:"):
            return b""  # a comment
        said = frame.removeprefix(b"data:").strip()
        return self._form.end() if said == _MARK else self._form.event(decode_said(said))

    async def drained(self) -> None:
        await self._reply.drained()

    def rename(self, error: ServingError) -> None:
        """Let an error of the app name the caller's own field."""
        given = error.param or ""
        if (name := self._form.names.get(given)) is None:
            return
        # A name of one word, such as `stop`, may also be a word of the message.
        found = rf"\b{given}\b" if "_" in given else f"(?<='){given}(?=')"
        error.param, error.message = name, re.sub(found, name, error.message)

    def close(self) -> None:
        """Call it when the app's answer is complete."""
        if not self._streams:
            self._reply.data(self._form.whole(decode_said(self._left)))
