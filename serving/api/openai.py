"""The OpenAI endpoints as the router sees them: it reads two fields and relays the rest."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from serving.api.asked import Ability, Sent, Target
from serving.api.completion import MAX_MODEL_ID
from serving.errors import InvalidField, InvalidRequest
from serving.wire.messages import HttpCall

# Headers that mean something to the engine's app; keys and cookies stay in the router.
_RELAYED_HEADERS = (b"content-type", b"accept", b"traceparent", b"tracestate")


class Peek(msgspec.Struct):
    """The two fields of an OpenAI body that the router needs; the engine checks all others."""

    model: str
    stream: bool | None = None


_decoder = msgspec.json.Decoder(Peek)


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """An `Asked` whose body goes to the engine's app as it came."""

    sent: Sent
    body: bytes
    model: str
    streams: bool
    account_id: str | None = None

    def check(self, abilities: frozenset[Ability]) -> None:
        """The engine's app checks the body."""

    def call(self, request_id: str, target: Target) -> tuple[HttpCall, bytes]:
        """See `Asked.call`."""
        sent = self.sent
        call = HttpCall(
            request_id=request_id,
            model=self.model,
            method="POST",
            path=sent.path,
            query=sent.query.decode("latin-1"),
            headers=tuple(
                (name.decode(), sent.headers[name].decode("latin-1"))
                for name in _RELAYED_HEADERS
                if name in sent.headers
            ),
            adapter=target.adapter,
            prompt_format=target.prompt_format,
        )
        return call, self.body


def parse_openai(sent: Sent, body: bytes) -> OpenAIRequest:
    """Check a request; raises as `peek`."""
    found = peek(body)
    return OpenAIRequest(sent, body, found.model, bool(found.stream))


def peek(body: bytes) -> Peek:
    """The model and the stream flag of a request body.

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
