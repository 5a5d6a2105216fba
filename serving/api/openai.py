"""The OpenAI endpoints as the router sees them: it reads three fields and relays the rest."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from serving.api.asked import Ability, Sent, Target
from serving.api.completion import MAX_MODEL_ID
from serving.api.excerpt import excerpt
from serving.api.strict import null
from serving.api.structure import MAX_TEXT
from serving.errors import InvalidField, InvalidRequest
from serving.wire.body import Body
from serving.wire.messages import HttpCall, Standing

# Says which betas of Anthropic's a request uses (docs.anthropic.com/en/api/beta-headers).
BETA_HEADER = "anthropic-beta"
# OpenAI's `service_tier` for requests that may wait longer (its guide to flex processing).
LOW_TIER = b'"flex"'
# Headers that mean something to the engine's app; keys and cookies stay in the router.
_RELAYED_HEADERS = (b"content-type", b"accept", b"traceparent", b"tracestate")
# And those that mean something to a provider; which of its APIs get one, their forms say.
_HOSTED_HEADERS = (*_RELAYED_HEADERS, BETA_HEADER.encode())


class Peek(msgspec.Struct):
    """The fields of an OpenAI body that the router needs; the engine checks all others."""

    model: str | msgspec.UnsetType = msgspec.UNSET
    stream: bool | None = None
    # As they stand in the body: no value is made of them.
    service_tier: msgspec.Raw = msgspec.field(default_factory=null)
    prompt: msgspec.Raw = msgspec.field(default_factory=null)


_decoder = msgspec.json.Decoder(Peek)


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """An `Asked` whose body goes to the engine's app as it came."""

    sent: Sent
    body: Body
    model: str
    streams: bool
    account_id: str | None = None
    form: str = ""
    batch: bool = False

    def check(self, abilities: frozenset[Ability]) -> None:
        """The engine's app checks the body."""

    def call(self, request_id: str, target: Target) -> tuple[HttpCall, Body]:
        """See `Asked.call`."""
        sent = self.sent
        relayed = _HOSTED_HEADERS if target.hosted else _RELAYED_HEADERS
        call = HttpCall(
            request_id=request_id,
            model=self.model,
            method="POST",
            path=sent.path,
            query=sent.query.decode("latin-1"),
            headers=tuple(
                (name.decode(), sent.headers[name].decode("latin-1"))
                for name in relayed
                if name in sent.headers
            ),
            adapter=target.adapter,
            prompt_format=target.prompt_format,
            form=self.form,
            standing=Standing(batch=self.batch),
        )
        return call, self.body


def parse_openai(sent: Sent, body: bytes) -> OpenAIRequest:
    """Check a request. A model ID in its path (Azure's way) may be left out of the body.

    Raises:
        InvalidField: as `peek`, or path and body name different models.
        InvalidRequest: as `peek`.
    """
    found = peek(body, sent.name)
    model = sent.name if found.model is msgspec.UNSET else found.model
    if sent.name and model != sent.name:
        raise InvalidField(
            f"the path names model '{excerpt(sent.name)}', the body '{excerpt(model)}'",
            param="model",
        )
    if found.model is msgspec.UNSET:
        # The engine's app wants it in the body, which is an object, as `peek` found.
        field, rest = msgspec.json.encode(model), body.lstrip()[1:]
        more = b"" if rest.lstrip().startswith(b"}") else b", "
        body = b'{"model": %b%b%b' % (field, more, rest)
    batch = bytes(found.service_tier) == LOW_TIER
    return OpenAIRequest(sent, body, model, bool(found.stream), batch=batch)


def peek(body: bytes, named: str = "") -> Peek:
    """The model and the stream flag of a request body.

    Args:
        named: the model ID in the path; the body may then leave it out.

    Raises:
        InvalidRequest: the body is no JSON object, or has a prompt of megabytes (400).
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
    model = named if found.model is msgspec.UNSET else found.model
    if found.model is msgspec.UNSET and not named:
        raise InvalidField("'model' is required and must be a string", param="model")
    if not model or len(model) > MAX_MODEL_ID:
        raise InvalidField(f"'model': must have 1 to {MAX_MODEL_ID} characters", param="model")
    if (size := len(memoryview(found.prompt))) > MAX_TEXT:
        # In the words of the engine server, which would get all of it only to refuse it.
        raise InvalidRequest(
            f"'prompt': has {size} bytes of JSON; at most {MAX_TEXT} are taken", param="prompt"
        )
    return found
