"""Create Completion: the request is checked here and the response is written here.

The request model is pydantic, once per request; the response is assembled from byte strings,
once per token. Field names, ranges and defaults are those of the published client SDKs.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from serving.api.asked import Ability, Target
from serving.api.excerpt import excerpt
from serving.api.shape import refuse_other_shapes
from serving.api.structure import SMALL
from serving.errors import InvalidField, InvalidRequest, ServingError
from serving.wire.messages import DEFAULT_TEMPERATURE, CompletionCall, End, ImageRef, Sampling

MAX_STOP_SEQUENCES = 4
MAX_MODEL_ID = 256
MAX_ACCOUNT_ID = 256
# Engines keep counts in 32 bits.
MAX_INT = 2**31 - 1


class Image(BaseModel):
    """An image the prompt refers to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image_url: str
    detail: str | None = None


StopSequence = Annotated[str, Field(min_length=1)]


class ModelParameters(BaseModel):
    """How to sample. An explicit null is the same as leaving the field out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    stop_sequences: Annotated[list[StopSequence], Field(max_length=MAX_STOP_SEQUENCES)] | None = (
        None
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, validation_alias=AliasChoices("top_p", "topP")
    )
    top_k: Annotated[int, Field(ge=1, le=MAX_INT)] | None = Field(
        default=None, validation_alias=AliasChoices("top_k", "topK")
    )
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    reasoning_effort: Literal["low", "medium", "high"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, data: Any) -> Any:
        """scale-gp sends `topP` and `topK`, others `top_p` and `top_k`. Both spellings may be sent
        only if one is null."""
        if not isinstance(data, dict):
            return data
        for names in (("top_p", "topP"), ("top_k", "topK")):
            if all(name in data for name in names):
                nulls = [name for name in names if data[name] is None]
                if not nulls:
                    raise ValueError(f"'{names[0]}' and '{names[1]}' are the same; send one")
                data = {name: value for name, value in data.items() if name != nulls[0]}
        return data


class CompletionRequest(BaseModel):
    """The body of `POST /v4/completions` and `POST /v2/completions`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_ID)]
    prompt: str
    account_id: Annotated[str, Field(max_length=MAX_ACCOUNT_ID)] | None = None
    # Only the first error is told; without `fail_fast` a small body can make millions.
    images: Annotated[list[Image], Field(fail_fast=True)] | None = None
    model_parameters: ModelParameters | None = None
    stream: bool | None = None

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    def check(self, abilities: frozenset[Ability]) -> None:
        """See `Asked.check`."""
        if self.images and Ability.SEE not in abilities:
            raise InvalidField(f"model '{excerpt(self.model)}' takes no images", param="images")
        given = self.model_parameters
        if given and given.reasoning_effort and Ability.REASON not in abilities:
            raise InvalidField(
                f"model '{excerpt(self.model)}' has no reasoning effort",
                param="model_parameters.reasoning_effort",
            )

    def call(self, request_id: str, target: Target) -> tuple[CompletionCall, bytes]:
        """See `Asked.call`."""
        images = tuple(ImageRef(at.image_url, at.detail or "auto") for at in self.images or ())
        call = CompletionCall(
            request_id=request_id,
            model=self.model,
            prompt=self.prompt,
            stream=self.streams,
            sampling=self.sampling(),
            served_model=target.model,
            adapter=target.adapter,
            images=images,
            prompt_format=target.prompt_format,
        )
        return call, b""

    def sampling(self) -> Sampling:
        """The parameters for the engine, with the documented defaults filled in."""
        given = self.model_parameters or ModelParameters()
        return Sampling(
            temperature=DEFAULT_TEMPERATURE if given.temperature is None else given.temperature,
            max_tokens=given.max_tokens,
            stop=tuple(given.stop_sequences or ()),
            top_p=given.top_p,
            top_k=given.top_k,
            frequency_penalty=given.frequency_penalty,
            presence_penalty=given.presence_penalty,
            reasoning_effort=given.reasoning_effort,
        )


def parse_completion(body: bytes) -> CompletionRequest:
    """Check a request body.

    Raises:
        InvalidRequest: the body is no JSON object (400).
        InvalidField: a field is missing, unknown, of the wrong type or out of range (422).
        ContextLengthExceeded: the prompt is longer than any context (400).
    """
    if len(body) > SMALL:
        refuse_other_shapes(body)
    try:
        return CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        raise as_serving_error(error) from None


def as_serving_error(error: ValidationError) -> ServingError:
    """The first error, in words; the offending input is not repeated (it may be the prompt)."""
    # Without the input: pydantic would make objects of megabytes of it first.
    first = error.errors(include_url=False, include_context=True, include_input=False)[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"the body is not valid JSON: {first['ctx']['error']}")
    where = _path(first["loc"])
    if not first["loc"]:
        return InvalidRequest("the body must be a JSON object")
    if first["type"] == "extra_forbidden":
        return InvalidField(f"unknown field '{where}'", param=where)
    if first["type"] == "missing":
        return InvalidField(f"'{where}' is required", param=where)
    message = first["msg"].removeprefix("Value error, ")
    return InvalidField(f"'{where}': {message[0].lower()}{message[1:]}", param=where)


def _path(loc: tuple[Any, ...]) -> str:
    return excerpt(".".join(str(part) for part in loc))


_TEXT = b'data: {"completion":{"text":'
_MORE = b',"finish_reason":null,"response_metadata":null},"token_usage":null}\n\n'


def stream_event(text: str, end: End | None = None, served_model: str = "") -> bytes:
    """One event of a streamed completion; the last one (`end`) carries finish reason and usage."""
    data = _TEXT + encode_basestring_ascii(text).encode()
    if end is None:
        return data + _MORE
    return data + _tail(end, served_model) + b"\n\n"


def whole_response(text: str, end: End, served_model: str) -> bytes:
    """The body of a completion that is not streamed."""
    return (
        b'{"completion":{"text":'
        + encode_basestring_ascii(text).encode()
        + _tail(end, served_model)
    )


def _tail(end: End, served_model: str) -> bytes:
    """The rest of a final object. `response_metadata.model` names the model that answered, so
    that an alias is never a silent substitute."""
    total = end.prompt_tokens + end.completion_tokens
    return (
        f',"finish_reason":{encode_basestring_ascii(end.finish_reason or "stop")}'
        f',"response_metadata":{{"model":{encode_basestring_ascii(served_model)}}}}}'
        f',"token_usage":{{"prompt":{end.prompt_tokens},"completion":{end.completion_tokens}'
        f',"total":{total}}}}}'
    ).encode()
