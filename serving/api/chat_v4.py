"""Create Chat Completion (`POST /v4/chat-completions`): the request is checked here, and the answer
of the engine's chat endpoint is rewritten here.

Field names, ranges and defaults are scale-gp's. A chat's parameters are Create Completion's, and
its stream has Create Completion's events; a whole answer has a message where that has a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from pydantic import ValidationError

from serving.api.asked import Sent
from serving.api.completion import (
    MAX_ACCOUNT_ID,
    MAX_INT,
    MAX_MODEL_ID,
    ModelParameters,
    as_serving_error,
    stream_event,
)
from serving.api.formed import CHAT_PATH, FormedRequest, refuse_template
from serving.api.said import Said, Usage
from serving.api.strict import null, read_strictly, without_nulls
from serving.errors import InvalidField
from serving.wire.messages import DEFAULT_TEMPERATURE, JSON_HEAD, End, HttpCall

FORM = "v4-chat"
# More than engines take by default (`BodyLimits`). All parts of all messages count together.
MAX_MESSAGES = 16_384
MAX_PARTS = 16_384
MAX_PARAMETERS = 64 * 1024

Detail = Literal["low", "high", "auto"]


class ImageURLV4(msgspec.Struct, forbid_unknown_fields=True):
    """An image by `data:` or `https:` URL."""

    url: str
    detail: Detail | None = None


class ImageDataV4(msgspec.Struct, forbid_unknown_fields=True):
    """An image in base64."""

    data: str
    media_type: str
    detail: Detail | None = None
    type: Literal["base64"] | None = None


class PartV4(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a user's message: one of text, image URL and image data."""

    type: Literal["text", "image_url", "image_data"] | None = None
    text: str | None = None
    image_url: ImageURLV4 | None = None
    image_data: ImageDataV4 | None = None

    def openai(self) -> dict[str, Any]:
        """
        Raises:
            InvalidField: the part is not exactly one thing.
        """
        given = without_nulls(
            {"text": self.text, "image_url": self.image_url, "image_data": self.image_data}
        )
        kind: str = self.type or next(iter(given), "")
        if list(given) != [kind]:
            raise InvalidField(
                "'messages.content': a part has exactly one of text, image_url and image_data, "
                "and its type",
                param="messages.content",
            )
        if self.text is not None:
            return {"type": "text", "text": self.text}
        if (data := self.image_data) is not None:
            url, detail = f"data:{data.media_type};base64,{data.data}", data.detail
        else:
            assert self.image_url is not None
            url, detail = self.image_url.url, self.image_url.detail
        image = without_nulls({"url": url, "detail": detail})
        return {"type": "image_url", "image_url": image}


class MessageV4(msgspec.Struct, forbid_unknown_fields=True):
    """One message; only a user's may have parts."""

    content: str | list[PartV4]
    role: Literal["user", "assistant", "system"] | None = None

    @property
    def has_images(self) -> bool:
        return not isinstance(self.content, str) and any(at.text is None for at in self.content)

    def openai(self) -> dict[str, Any]:
        role, content = self.role or "user", self.content
        if isinstance(content, str):
            return {"role": role, "content": content}
        if role != "user":
            raise InvalidField(
                f"'messages.content': must be a string for the role '{role}'",
                param="messages.content",
            )
        return {"role": role, "content": [part.openai() for part in content]}


Messages = Annotated[list[MessageV4], Meta(max_length=MAX_MESSAGES)]


def openai_messages(messages: Sequence[MessageV4], param: str) -> list[dict[str, Any]]:
    """
    Raises:
        InvalidField: there are too many parts, or one is not exactly one thing.
    """
    parts = sum(len(at.content) for at in messages if not isinstance(at.content, str))
    if parts > MAX_PARTS:
        raise InvalidField(
            f"'{param}': have {parts} parts; at most {MAX_PARTS} are taken", param=param
        )
    return [message.openai() for message in messages]


class LastK(msgspec.Struct, forbid_unknown_fields=True):
    """How many messages are kept."""

    k: Annotated[int, Meta(ge=1, le=MAX_INT)]


class MemoryStrategy(msgspec.Struct, forbid_unknown_fields=True):
    """What is kept of a long chat: its last messages."""

    params: LastK
    name: Literal["last_k"] | None = None


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v4/chat-completions`."""

    model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_ID)]
    messages: Annotated[list[MessageV4], Meta(min_length=1, max_length=MAX_MESSAGES)]
    account_id: Annotated[str, Meta(max_length=MAX_ACCOUNT_ID)] | None = None
    chat_template: str | None = None
    instructions: str | None = None
    memory_strategy: MemoryStrategy | None = None
    model_parameters: msgspec.Raw = msgspec.field(default_factory=null)
    stream: bool | None = None


_decoder = msgspec.json.Decoder(ChatRequest)


def parse_chat(sent: Sent, body: bytes) -> FormedRequest:
    """Check a request body.

    Raises:
        InvalidRequest: the body is no JSON object (400).
        InvalidField: a field is missing, unknown, of the wrong type or out of range (422).
    """
    given = read_strictly(_decoder, body)
    refuse_template(given.chat_template)
    messages = given.messages
    if given.memory_strategy is not None:
        messages = messages[-given.memory_strategy.params.k :]
    fields = {"messages": openai_messages(messages, "messages")}
    if given.instructions is not None:
        fields["messages"].insert(0, {"role": "system", "content": given.instructions})
    return FormedRequest(
        model=given.model,
        streams=bool(given.stream),
        form=FORM,
        path=CHAT_PATH,
        fields=fields | _sampling(given.model_parameters),
        account_id=given.account_id,
        images=any(message.has_images for message in messages),
        prefix="model_parameters.",
    )


def _sampling(raw: msgspec.Raw) -> dict[str, Any]:
    """Create Completion's parameters under OpenAI's names, with the documented defaults."""
    data = bytes(raw)
    if len(data) > MAX_PARAMETERS:
        raise InvalidField(
            f"'model_parameters': has more than {MAX_PARAMETERS} bytes", param="model_parameters"
        )
    try:
        given = ModelParameters() if data == b"null" else ModelParameters.model_validate_json(data)
    except ValidationError as error:
        refused = as_serving_error(error)
        where = ".".join(filter(None, ("model_parameters", refused.param)))
        message = refused.message
        if refused.param:
            message = message.replace(f"'{refused.param}'", f"'{where}'", 1)
        else:
            message = "'model_parameters': must be an object"
        raise InvalidField(message, param=where) from None
    fields = given.model_dump(exclude_none=True)
    stops = fields.pop("stop_sequences", None)
    return {"temperature": DEFAULT_TEMPERATURE, **fields} | ({"stop": stops} if stops else {})


class ChatAnswer:
    """Writes the answer."""

    names = {  # noqa: RUF012 - nobody writes to it
        "max_tokens": "model_parameters.max_tokens",
        "stop": "model_parameters.stop_sequences",
    }

    head = JSON_HEAD

    def __init__(self, call: HttpCall, body: bytes) -> None:
        self._call = call
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def event(self, said: Said) -> bytes:
        """The event for one of the engine's; empty if there is nothing to say."""
        self._usage = said.usage or self._usage
        if (choice := said.choice) is None:
            return b""
        self._finish_reason = choice.finish_reason or self._finish_reason
        return stream_event(choice.says) if choice.says else b""

    def end(self) -> bytes:
        """The last event, with finish reason and usage."""
        used = self._usage or Usage()
        end = End(self._finish_reason, used.prompt_tokens, used.completion_tokens)
        return stream_event("", end, self._call.served_model)

    def whole(self, said: Said) -> bytes:
        """A whole answer."""
        choice, usage = said.choices[0], "null"
        if (used := said.usage) is not None:
            total = used.prompt_tokens + used.completion_tokens
            usage = (
                f'{{"prompt":{used.prompt_tokens},"completion":{used.completion_tokens}'
                f',"total":{total}}}'
            )
        return (
            '{"chat_completion":{"message":{"role":"assistant","content":'
            f'{encode_basestring_ascii(choice.says)}}},"finish_reason":'
            f'{encode_basestring_ascii(choice.finish_reason or "stop")}}},"token_usage":{usage}}}'
        ).encode()
