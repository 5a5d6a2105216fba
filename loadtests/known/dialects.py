"""How the known server writes its answers, for each endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from loadtests.load.planned import Writing
from loadtests.wire.bodies import PATHS

WORD = "word "
WRITING: tuple[Writing, ...] = ("create_completion", "completions", "chat")
ENDPOINTS = {PATHS[endpoint]: endpoint for endpoint in WRITING}


class Options(msgspec.Struct):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class Parameters(msgspec.Struct):
    """Create Completion's `model_parameters`."""

    max_tokens: int = 16


class Body(msgspec.Struct):
    """What is read of a request."""

    model: str
    prompt: str = ""
    messages: list[dict[str, Any]] = []
    stream: bool = False
    max_tokens: int = 16
    model_parameters: Parameters | None = None
    stream_options: Options | None = None

    @property
    def tokens(self) -> int:
        """How many tokens it asks for."""
        return self.model_parameters.max_tokens if self.model_parameters else self.max_tokens

    @property
    def prompt_tokens(self) -> int:
        """How many it has itself: its words."""
        said = [str(message.get("content")) for message in self.messages]
        return sum(len(text.split()) for text in [self.prompt, *said])


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a request."""

    prompt: int
    cached: int
    completion: int


class Writer:
    """Writes the answers of one endpoint."""

    def __init__(self, endpoint: Literal["create_completion", "completions", "chat"]) -> None:
        self._endpoint = endpoint
        self.event = _frame(self._part(WORD, None))

    def first(self) -> bytes:
        """Return what comes with the first event: a chat's stream begins with the role alone."""
        if self._endpoint != "chat":
            return b""
        return _frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})

    def last(self, usage: Usage | None, asked: bool) -> bytes:
        """Return how a stream ends."""
        if self._endpoint == "create_completion":
            part = self._part("", "stop")
            part["token_usage"] = None if usage is None else self._usage(usage)
            return _frame(part)
        told = b""
        if usage is not None and asked:
            told = _frame({"choices": [], "usage": self._usage(usage)})
        return _frame(self._part("", "stop")) + told + b"data: [DONE]\n\n"

    def error(self) -> bytes:
        """Return the event of an error after the first byte."""
        said = _frame({"error": {"type": "server_error", "code": "engine_died", "message": "x"}})
        return b"event: error\n" + said if self._endpoint == "create_completion" else said

    def whole(self, words: int, usage: Usage | None) -> bytes:
        """Return an answer in one piece."""
        said = WORD * words
        if self._endpoint == "chat":
            message = {"role": "assistant", "content": said}
            found: dict[str, Any] = {"choices": [{"message": message, "finish_reason": "stop"}]}
        else:
            found = self._part(said, "stop")
        if usage is not None:
            name = "token_usage" if self._endpoint == "create_completion" else "usage"
            found[name] = self._usage(usage)
        return msgspec.json.encode(found)

    def _part(self, text: str, reason: str | None) -> dict[str, Any]:
        if self._endpoint == "create_completion":
            completion = {"text": text, "finish_reason": reason, "response_metadata": None}
            return {"completion": completion, "token_usage": None}
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason}
        if self._endpoint == "chat":
            choice["delta"] = {"content": text} if text else {}
        else:
            choice["text"] = text
        head = {"id": "cmpl-1", "created": 1700000000, "model": "known"}
        return {**head, "object": "text_completion", "choices": [choice]}

    def _usage(self, usage: Usage) -> dict[str, Any]:
        total = usage.prompt + usage.completion
        if self._endpoint == "create_completion":
            return {"prompt": usage.prompt, "completion": usage.completion, "total": total}
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
        }


def _frame(said: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(said) + b"\n\n"
