"""Bodies of the OpenAI endpoints, as the transformers engine takes them.

A subset of OpenAI's fields: what a request asks for is done or refused, never ignored in silence.
Field names, ranges and defaults are OpenAI's, as vLLM has them.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from serving.api.completion import MAX_INT, as_serving_error
from serving.errors import InvalidField
from serving.wire.messages import Sampling

MAX_STOP_SEQUENCES = 4
# Fields that this engine lacks, each with the values that a caller may send: they ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "logit_bias": ({},),
    "n": (1,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
# Fields that only say who asks and why.
IGNORED = frozenset(("user", "metadata", "safety_identifier"))


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Body(BaseModel):
    """What both endpoints take. `top_k` is vLLM's extension; there 0 and -1 mean all tokens."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    stop: Annotated[list[str], Field(max_length=MAX_STOP_SEQUENCES)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: list[str] | None) -> list[str] | None:
        if value and any(not stop for stop in value):
            raise ValueError("a stop sequence must not be empty")
        return value

    def refuse_what_is_not_supported(self) -> None:
        """Refuse a body that asks for something this engine does not do.

        Raises:
            InvalidField: the body has a field that this engine lacks or that nobody knows.
        """
        for name, value in (self.model_extra or {}).items():
            if value is None or name in IGNORED:
                continue
            # Not `in`: True equals 1.
            if any(value == one and type(value) is type(one) for one in NEUTRAL.get(name, ())):
                continue
            where = name[:128]
            raise InvalidField(f"'{where}' is not supported by this model's engine", param=where)
        if self.stream_options is not None and not self.stream:
            raise InvalidField("'stream_options': only with stream", param="stream_options")

    @property
    def limit(self) -> int | None:
        """The most tokens of the completion; None: all that the context has room for."""
        return self.max_tokens

    @property
    def limit_name(self) -> str:
        """The field that `limit` is from."""
        return "max_tokens"

    def sampling(self) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            max_tokens=self.limit,
            stop=tuple(self.stop or ()),
            top_p=self.top_p,
            top_k=self.top_k if self.top_k is not None and self.top_k > 0 else None,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
        )


class CompletionBody(Body):
    """The body of `/v1/completions`."""

    prompt: str
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = 16

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if not isinstance(value, str):
            raise ValueError("this model's engine takes one string, or a list with one")
        return value


class Message(BaseModel):
    """One message of a chat; its content may be a list of text parts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: str
    name: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _text_only(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        for part in value:
            if isinstance(part, dict) and str(part.get("type")) in ("image_url", "input_image"):
                raise ValueError("this model takes no images")
            if (
                not isinstance(part, dict)
                or part.get("type") != "text"
                or not isinstance(part.get("text"), str)
            ):
                raise ValueError("this model takes text only")
        return "\n".join(part["text"] for part in value)


# As in `api/completion.py`: a small body must not cause millions of validation errors.
Messages = Annotated[list[Message], Field(min_length=1, fail_fast=True)]


class ChatBody(Body):
    """The body of `/v1/chat/completions`."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None

    @property
    def limit(self) -> int | None:
        given = self.max_completion_tokens
        return self.max_tokens if given is None else given

    @property
    def limit_name(self) -> str:
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"


B = TypeVar("B", bound=Body)


def parse(kind: type[B], body: bytes) -> B:
    """Check a request body.

    Raises:
        InvalidRequest: the body is no JSON object (400).
        InvalidField: a field is missing, out of range or not supported (422).
    """
    try:
        given = kind.model_validate_json(body)
    except ValidationError as error:
        raise as_serving_error(error) from None
    given.refuse_what_is_not_supported()
    return given
