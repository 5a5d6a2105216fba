"""A request whose fields are checked here and which the engine's OpenAI app answers, in a form that
is not OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.api.asked import Ability, Target
from serving.api.excerpt import excerpt
from serving.api.structure import MAX_TEXT
from serving.errors import ContextLengthExceeded, InvalidField
from serving.wire.messages import HttpCall

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
_HEADERS = (("content-type", "application/json"),)


@dataclass(frozen=True, slots=True)
class FormedRequest:
    """An `Asked` for `path` of the engine's app.

    `fields` are those of the OpenAI body but its model and stream. `counts`: each event of a stream
    says how many tokens there are so far, where the engine can; a provider cannot. `images`: there
    are some. `prefix` stands before the names of sampling parameters in this form.
    """

    model: str
    streams: bool
    form: str
    path: str
    fields: dict[str, Any]
    account_id: str | None = None
    counts: bool = False
    images: bool = False
    prefix: str = ""

    def check(self, abilities: frozenset[Ability]) -> None:
        """See `Asked.check`."""
        refuse_long_text(
            *_texts(self.fields.get("messages", ())), str(self.fields.get("prompt", ""))
        )
        if self.images and Ability.SEE not in abilities:
            raise InvalidField(f"model '{excerpt(self.model)}' takes no images", param="messages")
        if "reasoning_effort" in self.fields and Ability.REASON not in abilities:
            raise InvalidField(
                f"model '{excerpt(self.model)}' has no reasoning effort",
                param=f"{self.prefix}reasoning_effort",
            )

    def call(self, request_id: str, target: Target) -> tuple[HttpCall, bytes]:
        """See `Asked.call`."""
        body = {"model": self.model, **self.fields}
        if self.streams:
            body["stream"], body["stream_options"] = True, {"include_usage": True}
            if self.counts and not target.hosted:
                body["stream_options"]["continuous_usage_stats"] = True
        call = HttpCall(
            request_id=request_id,
            model=self.model,
            method="POST",
            path=self.path,
            headers=_HEADERS,
            adapter=target.adapter,
            prompt_format=target.prompt_format,
            form=self.form,
            served_model=target.model,
        )
        return call, msgspec.json.encode(body)


def refuse_long_text(*texts: str) -> None:
    """
    Raises:
        ContextLengthExceeded: together they fit no context. Writing 30 MB anew for an engine, which
            would refuse them, takes a tenth of a second of the event loop.
    """
    characters = sum(map(len, texts))
    if characters > MAX_TEXT:
        raise ContextLengthExceeded(
            f"the prompt has {characters} characters; at most {MAX_TEXT} are taken"
        )


def _texts(messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            yield content
        else:
            yield from (part["text"] for part in content if "text" in part)


def refuse_template(template: str | None) -> None:
    """
    Raises:
        InvalidField: there is one. A template is a program, and one of a caller's could take any
            time and memory.
    """
    if template is not None:
        raise InvalidField(
            "'chat_template': is not taken from requests; a model's template stands in the models "
            "file",
            param="chat_template",
        )
