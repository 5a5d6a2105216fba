"""What comes back: server-sent events and JSON, read as parts of a text.

Server-sent events are as in https://html.spec.whatwg.org/multipage/server-sent-events.html, but
for lines that end in a lone carriage return, which no service of this kind sends.
"""

from __future__ import annotations

from typing import Any

import msgspec

from loadtests.load.planned import Endpoint


class Details(msgspec.Struct, gc=False):
    """OpenAI's `prompt_tokens_details`."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """OpenAI's usage."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: Details | None = None


class TokenUsage(msgspec.Struct, gc=False):
    """Create Completion's usage."""

    prompt: int
    completion: int


class Completion(msgspec.Struct, gc=False):
    """Create Completion's text, or a part of it."""

    text: str = ""
    finish_reason: str | None = None


class CreateCompletion(msgspec.Struct, gc=False):
    """Create Completion's answer, and each event of its stream."""

    completion: Completion | None = None
    token_usage: TokenUsage | None = None
    error: Any = None


class Said(msgspec.Struct, gc=False):
    """A message, or what an event adds to it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct, gc=False):
    """A choice of OpenAI's endpoints: `text`, `message` or `delta`, by endpoint."""

    text: str | None = None
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None


class OpenAI(msgspec.Struct, gc=False):
    """An answer of OpenAI's endpoints, and each event of their streams."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


class Part(msgspec.Struct, gc=False):
    """What one event, or a whole answer, said."""

    text: str = ""
    # It carries a part of the completion: text, but also reasoning and tool calls.
    carries: bool = False
    finish_reason: str | None = None
    prompt_tokens: int | None = None  # None: no usage in it
    cached_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None  # its kind
    done: bool = False  # OpenAI's [DONE]


_CREATE_COMPLETION = msgspec.json.Decoder(CreateCompletion)
_OPENAI = msgspec.json.Decoder(OpenAI)
_ANY = msgspec.json.Decoder()
DONE = b"[DONE]"


class Unreadable(ValueError):
    """An event or answer that is not what its endpoint sends."""


def read_part(endpoint: Endpoint, data: bytes) -> Part:
    """Read the data of one event, or a whole answer. Raises Unreadable."""
    if data == DONE:
        return Part(done=True)
    try:
        if endpoint == "create_completion":
            return _create_completion(_CREATE_COMPLETION.decode(data))
        return _openai(_OPENAI.decode(data))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from None


def _create_completion(said: CreateCompletion) -> Part:
    if said.error is not None:
        return Part(error=error_kind(said.error))
    completion = said.completion
    if completion is None:
        raise Unreadable("it has no `completion`")
    part = Part(completion.text, bool(completion.text), completion.finish_reason)
    usage = said.token_usage
    if usage is not None:
        part.prompt_tokens, part.completion_tokens = usage.prompt, usage.completion
    return part


def _openai(said: OpenAI) -> Part:
    if said.error is not None:
        return Part(error=error_kind(said.error))
    part = Part()
    for choice in said.choices:
        message = choice.delta or choice.message
        if message is not None:
            part.text += message.content or ""
            if message.reasoning_content or message.reasoning or message.tool_calls:
                part.carries = True
        elif choice.text is not None:
            part.text += choice.text
        part.finish_reason = choice.finish_reason or part.finish_reason
    part.carries = part.carries or bool(part.text)
    usage = said.usage
    if usage is not None:
        part.prompt_tokens = usage.prompt_tokens
        part.completion_tokens = usage.completion_tokens or 0
        if usage.prompt_tokens_details is not None:
            part.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0
    return part


def error_kind(error: Any) -> str:
    """Return what kind of error an error object names: its code or type, never its message.

    A message has IDs and counts in it, so that equal errors would not be counted together.
    """
    if isinstance(error, dict):
        for field in ("code", "type"):
            if isinstance(error.get(field), str) and error[field]:
                return str(error[field])[:60]
    return "error"


def body_kind(body: bytes) -> str:
    """Return the kind of error in an error's body; empty where it names none."""
    try:
        said = _ANY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    if not isinstance(said, dict):
        return ""
    # vLLM's own errors had no `error` around them for long.
    inner = said.get("error") if isinstance(said.get("error"), dict) else said
    kind = error_kind(inner)
    return "" if kind == "error" else kind


class Frames:
    """Cuts a stream of bytes into the events it is made of."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are whole now, without the blank lines that close them."""
        if self.rest:
            data = self.rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *frames, self.rest = data.split(b"\n\n")
        return frames


def frame_data(frame: bytes) -> tuple[bytes, bytes]:
    """Return the event's name (empty for most) and its data (empty for comments)."""
    if frame.startswith(b"data: ") and b"\n" not in frame:
        return b"", frame[6:]
    name, data = b"", []
    for line in frame.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            data.append(value)
    return name, b"\n".join(data)
