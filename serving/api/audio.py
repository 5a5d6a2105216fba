"""Requests about a recording: OpenAI's transcriptions and translations.

The router reads one field, the model. Which fields there are and what they may be says
`AudioRequest`; the engine server holds a request against it (`serving/engine/bodies/audio.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from serving.api.asked import Sent
from serving.api.completion import MAX_MODEL_ID
from serving.api.excerpt import excerpt
from serving.api.multipart import parts_of
from serving.api.openai import OpenAIRequest
from serving.errors import InvalidField

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
PATHS = frozenset((TRANSCRIPTIONS, TRANSLATIONS))
# What an engine's core can be sent as an integer, and more than any use of it.
_MOST = 2**31 - 1


class AudioRequest(BaseModel):
    """The fields of a request as a form. The file is a part with a file's name."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    file: Annotated[
        bytes,
        WithJsonSchema({"type": "string", "format": "binary"}),
        Field(description="the recording: wav, mp3, flac, ogg, m4a, mp4, webm"),
    ]
    model: str = Field(default="", description="a model ID")
    language: Annotated[str, StringConstraints(pattern=r"^[A-Za-z-]{2,16}$")] | None = Field(
        default=None, description="of the speech, as in ISO 639-1; default: the model finds it out"
    )
    prompt: str = Field(default="", description="what was said before, or words to expect")
    response_format: Literal["json"] = "json"
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    stream: Literal[False, "false", "0"] = Field(default=False, description="an answer comes whole")
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MOST)] | None = Field(
        default=None, description="of each part of a recording"
    )
    seed: Annotated[int, Field(ge=-_MOST, le=_MOST)] | None = None


def parse_audio(sent: Sent, body: bytes) -> OpenAIRequest:
    """Check a request. A model ID in its path (Azure's way) may be left out of the body.

    Raises:
        InvalidRequest: the body is no form (400).
        InvalidField: `model` is missing, comes twice or is no ID, or path and body name different
            models (422).
    """
    content_type = sent.headers.get(b"content-type", b"").decode("latin-1")
    named = [part for part in parts_of(content_type, body) if part.name == "model"]
    if len(named) > 1:
        raise InvalidField("'model': is there more than once", param="model")
    model = sent.name
    for part in named:
        if not 0 < part.end - part.start <= 4 * MAX_MODEL_ID:
            raise _no_id()
        model = body[part.start : part.end].decode(errors="replace")
    if not model:
        raise InvalidField("'model' is required", param="model")
    if len(model) > MAX_MODEL_ID:
        raise _no_id()
    if sent.name and model != sent.name:
        raise InvalidField(
            f"the path names model '{excerpt(sent.name)}', the body '{excerpt(model)}'",
            param="model",
        )
    return OpenAIRequest(sent, body, model, streams=False)


def _no_id() -> InvalidField:
    return InvalidField(f"'model': must have 1 to {MAX_MODEL_ID} characters", param="model")
