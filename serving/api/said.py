"""What an engine's OpenAI app says in one answer or event, as far as other forms repeat it."""

from __future__ import annotations

from typing import Any

import msgspec


class Words(msgspec.Struct):
    """A message, or the part of one that an event adds. A provider that refuses to answer says so
    in `refusal`."""

    content: Any = None
    refusal: Any = None

    @property
    def text(self) -> str:
        said = self.content or self.refusal
        return said if isinstance(said, str) else ""


class Choice(msgspec.Struct):
    """The one choice of an answer: a chat's has a message or a delta, a completion's a text."""

    delta: Words | None = None
    message: Words | None = None
    text: str = ""
    finish_reason: str | None = None
    logprobs: Any = None

    @property
    def says(self) -> str:
        words = self.message or self.delta
        return self.text if words is None else words.text


class Usage(msgspec.Struct):
    """Tokens of the whole answer, or up to an event."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Said(msgspec.Struct):
    """An answer, or an event of one. The event that has the usage may have no choice. `text` is
    that of an answer about a recording, which has no choices."""

    choices: list[Choice] = []
    text: str = ""
    usage: Usage | None = None

    @property
    def choice(self) -> Choice | None:
        return self.choices[0] if self.choices else None


decode_said = msgspec.json.Decoder(Said).decode
