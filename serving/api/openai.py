"""The OpenAI endpoints as the router sees them: it reads the model and relays the rest."""

from __future__ import annotations

import msgspec

from serving.api.completion import MAX_MODEL_ID
from serving.errors import InvalidField, InvalidRequest


class Peek(msgspec.Struct):
    """The two fields of an OpenAI body that the router needs; vLLM checks all the others."""

    model: str
    stream: bool | None = None


_decoder = msgspec.json.Decoder(Peek)


def peek(body: bytes) -> Peek:
    """The model and the stream flag of an OpenAI request body.

    Raises:
        InvalidRequest: the body is no JSON object (400).
        InvalidField: `model` is missing, empty or no string, or `stream` no bool (422).
    """
    try:
        found = _decoder.decode(body)
    except msgspec.ValidationError as error:
        message = str(error)
        if "Expected `object`" in message:
            raise InvalidRequest("the body must be a JSON object") from None
        if "stream" in message:
            raise InvalidField("'stream': must be true or false", param="stream") from None
        raise InvalidField("'model' is required and must be a string", param="model") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not found.model or len(found.model) > MAX_MODEL_ID:
        raise InvalidField(f"'model': must have 1 to {MAX_MODEL_ID} characters", param="model")
    return found
