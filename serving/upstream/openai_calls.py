"""OpenAI's own endpoints in front of a provider.

A request to `/v1/chat/completions` goes to the provider as it came, and its answer comes back so:
only the model's name is replaced. A request to `/v1/completions`, which providers have given up,
becomes a chat request with the prompt as its one message; a field without a counterpart is a 422.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.catalogue.spec import UpstreamSpec
from serving.errors import InvalidField, InvalidRequest
from serving.upstream.dialects import Dialect, check_chat, fitted
from serving.wire.messages import UNMARKED, HttpCall

Json = dict[str, Any]

_decode = msgspec.json.decode
# The old endpoint's default, at OpenAI and in vLLM; chat has none.
LEGACY_MAX_TOKENS = 16
# Fields of the old endpoint that have the same name and meaning in chat.
_SHARED = (
    "temperature", "top_p", "stop", "n", "seed", "user", "frequency_penalty", "presence_penalty",
    "logit_bias", "metadata", "service_tier",
)  # fmt: skip
# Fields that chat lacks, each with the values that change nothing; other values are refused.
_IDLE: dict[str, tuple[Any, ...]] = {
    "echo": (False,),
    "best_of": (1,),
    "logprobs": (),
    "suffix": ("",),
}


@dataclass(frozen=True)
class Form:
    """One request: the body to send, and `render`, which makes the caller's event of one of the
    provider's, or None to drop it."""

    body: Json
    streams: bool
    render: Callable[[Json], Json | None]


def chat_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """A chat request.

    Raises:
        InvalidRequest: the body is no JSON object.
        InvalidField: the provider would ignore a field.
    """
    asked = _object(body)
    if call.form not in ("", UNMARKED):
        asked = fitted(asked, call.model, spec, dialect)
    check_chat(asked, dialect)
    with_usage = _wants_usage(asked)
    sent = _sent(asked, spec)
    limits = [asked.get("max_tokens"), asked.get("max_completion_tokens")]
    if dialect.needs_max_tokens and spec.max_output and limits == [None, None]:
        sent[dialect.max_tokens] = spec.max_output

    def render(event: Json) -> Json | None:
        return _named(_without_usage(event, with_usage), call.model)

    return Form(sent, bool(sent.get("stream")), render)


def completions_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """A request of the old endpoint as a chat request.

    Raises:
        InvalidRequest: the body is no JSON object.
        InvalidField: a field has no counterpart in chat.
    """
    asked = {name: value for name, value in _object(body).items() if value is not None}
    shared = {name: asked[name] for name in _SHARED if name in asked}
    limit = asked.get("max_tokens", LEGACY_MAX_TOKENS)
    chat: Json = {
        **shared,
        "messages": [{"role": "user", "content": _prompt(asked, call.model)}],
        dialect.max_tokens: limit,
    }
    for name in ("stream", "stream_options"):
        if name in asked:
            chat[name] = asked[name]
    known = {*chat, "model", "prompt", "max_tokens"}
    for name, value in asked.items():
        if name not in known and value not in _IDLE.get(name, ()):
            raise InvalidField(
                f"'{name[:64]}': model '{call.model}' is a chat model of a provider, which has no "
                "such parameter; use /v1/chat/completions",
                param=name[:64],
            )
    check_chat(chat, dialect)
    with_usage = _wants_usage(asked)
    sent = _sent(chat, spec)

    def render(event: Json) -> Json | None:
        seen = _without_usage(event, with_usage)
        return None if seen is None else _as_text_completion(seen, call.model)

    return Form(sent, bool(sent.get("stream")), render)


def _object(body: bytes) -> Json:
    # The router has read two fields of it only.
    try:
        asked = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("the body is not valid JSON") from None
    if not isinstance(asked, dict):
        raise InvalidRequest("the body must be a JSON object")
    return asked


def _prompt(asked: Json, model: str) -> str:
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InvalidField(
            f"'prompt': model '{model}' is a chat model of a provider, which takes one string",
            param="prompt",
        )
    return prompt


def _wants_usage(asked: Json) -> bool:
    if not asked.get("stream"):
        return True
    options = asked.get("stream_options")
    return bool(isinstance(options, dict) and options.get("include_usage"))


def _sent(asked: Json, spec: UpstreamSpec) -> Json:
    """The body for the provider. It asks a stream for its usage even if the caller does not."""
    sent = {**asked, "model": spec.upstream_model}
    if sent.get("stream"):
        options = asked.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise InvalidField("'stream_options': must be an object", param="stream_options")
        sent["stream_options"] = {**(options or {}), "include_usage": True}
    return sent


def _without_usage(event: Json, with_usage: bool) -> Json | None:
    """The event as it is without `include_usage`: without the field, and None for the last one,
    which holds nothing but the usage."""
    if with_usage or "usage" not in event:
        return event
    if not event["choices"]:
        return None
    return {name: value for name, value in event.items() if name != "usage"}


def _named(event: Json | None, model: str) -> Json | None:
    """The event with the model ID that the caller wrote, as engines answer."""
    return None if event is None else {**event, "model": model}


def _as_text_completion(event: Json, model: str) -> Json:
    """A chat answer, or one event of it, in the old endpoint's form."""
    choices = []
    for choice in event["choices"]:
        said = choice.get("delta") or choice.get("message") or {}
        choices.append(
            {
                "index": choice.get("index") or 0,
                "text": said.get("content") or said.get("refusal") or "",
                "logprobs": None,
                "finish_reason": choice.get("finish_reason"),
            }
        )
    answer = {
        "id": str(event.get("id", "")).replace("chatcmpl-", "cmpl-", 1),
        "object": "text_completion",
        "created": event.get("created", 0),
        "model": model,
        "choices": choices,
    }
    if "usage" in event:
        answer["usage"] = event["usage"]
    return answer
