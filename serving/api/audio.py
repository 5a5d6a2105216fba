"""Requests about a recording: OpenAI's transcriptions and translations.

The router reads the model, and how the answer is to be written. Which fields there are and what
they may be says `AudioRequest`; the engine server holds a request against it
(`serving/engine/bodies/audio.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from serving.api.asked import Sent
from serving.api.audio_answers import EVENTS_FORM, TEXT_FORM
from serving.api.completion import MAX_MODEL_ID
from serving.api.excerpt import excerpt
from serving.api.multipart import FormReader
from serving.api.openai import OpenAIRequest
from serving.errors import InvalidField
from serving.wire.body import Body

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
PATHS = frozenset((TRANSCRIPTIONS, TRANSLATIONS))
# What an engine's core can be sent as an integer, and more than any use of it.
_MOST = 2**31 - 1
# What a router reads of a form.
_READ = frozenset(("model", "stream", "response_format"))


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
    response_format: Literal["json", "text", "verbose_json"] = "json"
    timestamp_granularities: Literal["segment"] = Field(
        default="segment", alias="timestamp_granularities[]", description="of `verbose_json`"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    stream: Literal[False, True, "false", "true", "0", "1"] = Field(
        default=False, description="the text in events as it is found; not with `verbose_json`"
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MOST)] | None = Field(
        default=None, description="of each part of a recording"
    )
    seed: Annotated[int, Field(ge=-_MOST, le=_MOST)] | None = None


class AudioForm:
    """An `Incoming`: the form of a request, of which three fields are looked at. A model ID in its
    path (Azure's way) may be left out of the body.

    Raises:
        InvalidRequest: the body is no form (400).
        InvalidField: `model` is missing, comes twice or is no ID, or path and body name different
            models (422). So do `feed` and `asked`.
    """

    def __init__(self, sent: Sent) -> None:
        content_type = sent.headers.get(b"content-type", b"").decode("latin-1")
        self._sent = sent
        self._reader = FormReader(content_type, _READ, 4 * MAX_MODEL_ID)
        self._given: dict[str, str] = {}
        self.model = sent.name

    def feed(self, data: bytes) -> None:
        """See `Incoming.feed`."""
        for part in self._reader.feed(data):
            if part.name not in _READ:
                continue
            if part.name in self._given:
                raise InvalidField(f"'{part.name}': is there more than once", param=part.name)
            self._given[part.name] = (part.content or b"").decode(errors="replace")
            if part.name == "model":
                self.model = self._model(self._given["model"])

    def asked(self, body: Body) -> OpenAIRequest:
        """See `Incoming.asked`."""
        self._reader.close()
        if not self.model:
            raise InvalidField("'model' is required", param="model")
        streams, form = self._given.get("stream") in ("true", "1"), ""
        if streams and self._sent.path == TRANSCRIPTIONS:
            form = EVENTS_FORM
        elif not streams and self._given.get("response_format") == "text":
            form = TEXT_FORM
        return OpenAIRequest(self._sent, body, self.model, streams, form=form)

    def _model(self, given: str) -> str:
        if not 0 < len(given) <= MAX_MODEL_ID:
            raise InvalidField(f"'model': must have 1 to {MAX_MODEL_ID} characters", param="model")
        if self._sent.name and given != self._sent.name:
            raise InvalidField(
                f"the path names model '{excerpt(self._sent.name)}', the body '{excerpt(given)}'",
                param="model",
            )
        return given
