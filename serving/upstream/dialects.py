"""How each provider's OpenAI-compatible endpoint names things, and what it cannot do.

Nothing that a caller asks for is dropped in silence: what a provider would ignore is refused here
with a 422 that names the field. What a provider refuses itself is left to it, in its words.

Sources, as of 2026-11: OpenAI platform.openai.com/docs/api-reference/chat/create (`max_tokens` is
deprecated there and refused by reasoning models, which take no `temperature` but their own);
Anthropic docs.anthropic.com/en/api/openai-sdk, "Simple fields" (its list of ignored fields);
Gemini ai.google.dev/gemini-api/docs/openai (unknown fields are a 400, "Cannot find field":
github.com/n4ze3m/page-assist issue 418, MinLL/SkyrimNet-GamePlugin issue 77).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.catalogue.spec import UpstreamSpec
from serving.errors import InvalidField
from serving.wire.messages import DEFAULT_TEMPERATURE, CompletionCall, ImageRef


@dataclass(frozen=True)
class Dialect:
    """What is particular to one provider.

    `max_tokens`: its name for the limit; `needs_max_tokens`: a request must have it.
    `cannot`: parameters of Create Completion that it does not have.
    `blank_stops`: stop sequences may be white space; `image_detail`: images may have a detail;
    `strict_tools`: a tool's `strict` has an effect. `max_temperature`: a higher temperature is
    silently lowered to it. `ignores`: fields of a chat request that it accepts and ignores, each
    with a test for the values that make no difference.
    """

    name: str
    max_tokens: str = "max_tokens"
    needs_max_tokens: bool = False
    cannot: frozenset[str] = frozenset()
    ignores: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    blank_stops: bool = True
    image_detail: bool = True
    strict_tools: bool = True
    max_temperature: float | None = None


def _zero(value: Any) -> bool:
    return bool(value == 0)


def _never(value: Any) -> bool:
    return False


def _empty(value: Any) -> bool:
    return not value


def _plain_text(value: Any) -> bool:
    return bool(value in ({"type": "text"}, ["text"]))


DIALECTS = {
    "openai": Dialect("OpenAI", max_tokens="max_completion_tokens", cannot=frozenset({"top_k"})),
    "anthropic": Dialect(
        "Anthropic",
        needs_max_tokens=True,
        cannot=frozenset({"top_k", "frequency_penalty", "presence_penalty", "reasoning_effort"}),
        ignores={
            "audio": _never,
            "frequency_penalty": _zero,
            "logit_bias": _empty,
            "logprobs": _empty,
            "modalities": _plain_text,
            "prediction": _never,
            "presence_penalty": _zero,
            "reasoning_effort": _never,
            "response_format": _plain_text,
            "seed": _never,
            "top_k": _never,
            "top_logprobs": _zero,
        },
        blank_stops=False,
        image_detail=False,
        strict_tools=False,
        max_temperature=1.0,
    ),
    "gemini": Dialect(
        "Gemini",
        cannot=frozenset({"top_k", "frequency_penalty", "presence_penalty"}),
    ),
}


def chat_body(call: CompletionCall, spec: UpstreamSpec, dialect: Dialect) -> dict[str, Any]:
    """The chat request that stands for a Create Completion call: its prompt is one user message.

    Raises:
        InvalidField: the provider cannot do something that is asked for.
    """
    sampling = call.sampling
    given = {
        name: getattr(sampling, name)
        for name in ("top_p", "top_k", "frequency_penalty", "presence_penalty", "reasoning_effort")
    }
    given = {name: value for name, value in given.items() if value is not None}  # fmt: skip
    _check_parameters(given, call.model, dialect)
    body: dict[str, Any] = {
        "model": spec.upstream_model,
        "messages": [{"role": "user", "content": _content(call, dialect)}],
        **given,
    }
    # Reasoning models refuse any temperature: the API's default, which nobody chose, is not sent.
    if not (spec.reasoning and sampling.temperature == DEFAULT_TEMPERATURE):
        body["temperature"] = sampling.temperature
    if sampling.stop:
        _check_stops(list(sampling.stop), dialect, "model_parameters.stop_sequences")
        body["stop"] = list(sampling.stop)
    limit = sampling.max_tokens
    if limit is None and dialect.needs_max_tokens:
        limit = spec.max_output
    if limit is not None:
        body[dialect.max_tokens] = limit
    if call.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def fitted(
    asked: Mapping[str, Any], model: str, spec: UpstreamSpec, dialect: Dialect
) -> dict[str, Any]:
    """A chat of one of Scale's endpoints, as the provider takes it: the caller wrote Create
    Completion's parameters, and not OpenAI's.

    Raises:
        InvalidField: the provider cannot do something that is asked for.
    """
    _check_parameters(asked, model, dialect)
    body = dict(asked)
    if spec.reasoning and body.get("temperature") == DEFAULT_TEMPERATURE:
        del body["temperature"]
    if "max_tokens" in body:
        body[dialect.max_tokens] = body.pop("max_tokens")
    return body


def _check_parameters(given: Mapping[str, Any], model: str, dialect: Dialect) -> None:
    for name in given:
        if name in dialect.cannot:
            raise InvalidField(
                f"model '{model}': its provider ({dialect.name}) has no '{name}'",
                param=f"model_parameters.{name}",
            )


def check_chat(body: Mapping[str, Any], dialect: Dialect) -> None:
    """Refuse what the provider would ignore in an OpenAI chat request.

    Raises:
        InvalidField: names the first such field.
    """
    for name, harmless in dialect.ignores.items():
        value = body.get(name)
        if value is not None and not harmless(value):
            raise InvalidField(f"'{name}': {dialect.name} ignores it; leave it out", param=name)
    temperature, limit = body.get("temperature"), dialect.max_temperature
    if limit is not None and isinstance(temperature, (int, float)) and temperature > limit:
        raise InvalidField(
            f"'temperature': {dialect.name} takes at most {limit:g}", param="temperature"
        )
    tools = body.get("tools")
    if not dialect.strict_tools and isinstance(tools, list) and any(map(_is_strict, tools)):
        raise InvalidField(f"'tools': {dialect.name} ignores `strict`; leave it out", param="tools")
    stops = body.get("stop")
    _check_stops([stops] if isinstance(stops, str) else stops, dialect, "stop")


def _check_stops(stops: Any, dialect: Dialect, param: str) -> None:
    if dialect.blank_stops or not isinstance(stops, list):
        return
    if any(isinstance(stop, str) and not stop.strip() for stop in stops):
        raise InvalidField(
            f"'{param}': {dialect.name} ignores a stop sequence of nothing but white space",
            param=param,
        )


def _is_strict(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and bool(function.get("strict"))


def _content(call: CompletionCall, dialect: Dialect) -> str | list[dict[str, Any]]:
    if not call.images:
        return call.prompt
    parts: list[dict[str, Any]] = [{"type": "text", "text": call.prompt}]
    parts += [_image(number, image, dialect) for number, image in enumerate(call.images)]
    return parts


def _image(number: int, image: ImageRef, dialect: Dialect) -> dict[str, Any]:
    url = {"url": image.url}
    if dialect.image_detail:
        url["detail"] = image.detail
    elif image.detail != "auto":
        raise InvalidField(
            f"'images.{number}.detail': {dialect.name} ignores it; leave it out",
            param=f"images.{number}.detail",
        )
    return {"type": "image_url", "image_url": url}
