"""One request in a provider's API, and how its answer is read.

A provider has several APIs (chat, responses, messages, embeddings). Each has a module that makes
the `Form` of a request; the rest of this package sends forms and knows no API by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from serving.api.guess import BYTES_PER_TOKEN, written
from serving.api.structure import SMALL
from serving.engine.interface import Tally
from serving.errors import InvalidRequest

Json = dict[str, Any]
Event = Json

# In a caller's body, those of its texts too; so many keys take 0.1 s of the event loop.
MAX_COLONS = 200_000
_decode, _encode = msgspec.json.decode, msgspec.json.encode


class NotAnAnswer(Exception):
    """What the provider sent is not what this API answers; the message says what it is instead."""


class Reading(ABC):
    """Reads one answer, event by event; an answer that is not streamed is one event.

    Args:
        tally: gets the usage that the provider says, and the finish reason. What it has not said
            (yet) is guessed from the length of request and answer: a provider bills what it has
            written, whoever leaves before the end.
    """

    def __init__(self, tally: Tally, *, streams: bool) -> None:
        self.tally = tally
        self.streams = streams
        self.usage = False  # True once the provider has said it
        self._prompt_guess = 0  # tokens
        self._said = 0  # completion tokens, as of the last usage
        # Since then: events that add to the answer, bytes that they add.
        self._events = self._bytes = 0
        self._news = False

    @abstractmethod
    def take(self, event: Event) -> Event:
        """Check one event: whatever later code relies on is there. Returns the event to pass on.

        Raises:
            NotAnAnswer: it is not.
        """

    @property
    @abstractmethod
    def finished(self) -> bool:
        """True once nothing is missing from the answer."""

    def error(self, event: Event) -> object:
        """The error that an event of this API stands for, or something false."""
        return event.get("error")

    def text(self, event: Event) -> str:
        """The text that an event adds to the completion; asked of chats only."""
        return ""

    def added(self, event: Event) -> object:
        """The part of an event that the model has written, and no event before had."""
        return None

    def begin(self, prompt_guess: int) -> None:
        """The provider has begun to answer; its prompt has about so many tokens."""
        self._prompt_guess = prompt_guess
        self.tally.count = self.estimate

    def follow(self, event: Event) -> None:
        """Take note of how much an event adds to the answer; `take` has seen it."""
        said, self._news = self._news, False
        if not said and (size := written(self.added(event))):
            self._events += 1
            self._bytes += size

    def count(self, prompt: object, completion: object, cached: object = 0) -> None:
        """Take over a usage, which is of all up to this event; `cached` is a part of the prompt."""
        self.usage = self._news = True
        self._events = self._bytes = 0
        self.tally.prompt_tokens = _count(prompt)
        self.tally.completion_tokens = self._said = _count(completion)
        self.tally.cached_tokens = _count(cached)
        self.tally.guessed = False

    @property
    def known(self) -> bool:
        """True if the provider has said the usage of all that it has sent."""
        return self.usage and not self._events

    def estimate(self) -> None:
        """Bring the tally up to date: each event is one token, or more if it is long."""
        if self.known:
            return
        tally = self.tally
        tally.guessed = True
        if not self.usage:
            tally.prompt_tokens = self._prompt_guess
        tally.completion_tokens = self._said + max(self._events, self._bytes // BYTES_PER_TOKEN)


class OnePiece(Reading):
    """Reads an answer that is never streamed."""

    @property
    def finished(self) -> bool:
        """True: it comes in one piece."""
        return True


@dataclass(frozen=True)
class Form:
    """One request.

    `path` is the provider's, below its base URL. `render` makes the caller's bytes of one of the
    provider's events (empty: nothing is sent), and `end` follows the last of a stream. `own_key`
    names the header that has the key where that is not `Authorization`.
    """

    path: str
    body: Json
    reading: type[Reading]
    render: Callable[[Event], bytes]
    end: bytes = b""
    own_key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        """True if the answer is a stream."""
        return bool(self.body.get("stream"))


def json_object(body: bytes) -> Json:
    """A caller's body, of which the router has read three fields only.

    Raises:
        InvalidRequest: it is no JSON object, or may have so many keys that making them takes long.
    """
    if len(body) > SMALL and (colons := body.count(b":")) > MAX_COLONS:
        raise InvalidRequest(f"the body has {colons} colons; at most {MAX_COLONS} are taken")
    try:
        asked = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("the body is not valid JSON") from None
    if not isinstance(asked, dict):
        raise InvalidRequest("the body must be a JSON object")
    return asked


def unstreamed(body: bytes, model: str) -> Json:
    """A caller's body for the provider's `model`, where there is nothing to stream.

    Raises:
        InvalidRequest: it is no JSON object.
    """
    sent = {**json_object(body), "model": model}
    sent.pop("stream", None)
    return sent


def as_asked(streams: object, model: str, part: str) -> Callable[[Event], bytes]:
    """Writes events, or whole answers, with the model ID that the caller wrote: in the event, and
    in the object that it has as `part`."""
    write = named if streams else whole

    def render(event: Event) -> bytes:
        if "model" in event:
            event = {**event, "model": model}
        inner = event.get(part)
        if isinstance(inner, dict) and "model" in inner:
            event = {**event, part: {**inner, "model": model}}
        return write(event)

    return render


def whole(event: Event) -> bytes:
    """An answer that is not streamed."""
    return _encode(event)


def unnamed(event: Event) -> bytes:
    """An event of a stream whose events have no names."""
    return b"data: %b\n\n" % _encode(event)


def named(event: Event) -> bytes:
    """An event of a stream whose events are named as their `type`."""
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), _encode(event))


def cached_of(usage: Event, details: str) -> object:
    """The cached tokens that an OpenAI usage names among its `details`; None if it does not."""
    found = usage.get(details)
    return found.get("cached_tokens") if isinstance(found, dict) else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
