"""The chat API of a provider, behind three endpoints of ours.

A request to `/v1/chat/completions` goes to the provider as it came, and its answer comes back so:
only the model's name is replaced. A request to `/v1/completions`, which providers have given up,
becomes a chat request with the prompt as its one message; a field without a counterpart is a 422.
Create Completion's becomes one in `dialects.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving.catalogue.spec import UpstreamSpec
from serving.engine.interface import Tally
from serving.errors import InvalidField
from serving.upstream.dialects import Dialect, chat_body, check_chat, fitted
from serving.upstream.form import (
    Event,
    Form,
    Json,
    NotAnAnswer,
    Reading,
    cached_of,
    json_object,
    unnamed,
    whole,
)
from serving.wire.messages import UNMARKED, CompletionCall, HttpCall

PATH = "/chat/completions"
_DONE = b"data: [DONE]\n\n"
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


class ChatReading(Reading):
    """Reads a chat answer: each of its choices has to get a finish reason. The text and the reason
    are the first choice's."""

    def __init__(self, tally: Tally, *, streams: bool) -> None:
        super().__init__(tally, streams=streams)
        self._open: set[int] = set()  # choices without a finish reason
        self._seen_choice = False

    def take(self, event: Event) -> Event:
        """See `Reading.take`."""
        choices = event.get("choices")
        if self.streams and choices is None:
            choices = []  # a provider's own event, such as a ping
            event = {**event, "choices": choices}
        if not isinstance(choices, list):
            raise NotAnAnswer("its answer has no choices")
        for choice in choices:
            if not _is_choice(choice, self.streams):
                raise NotAnAnswer("its answer is no completion")
            self._seen_choice = True
            index, reason = choice.get("index", 0), choice.get("finish_reason")
            if reason is None:
                self._open.add(index)
            else:
                self._open.discard(index)
            if not index:
                self.tally.finish_reason = reason or self.tally.finish_reason
        if isinstance(usage := event.get("usage"), dict):
            # Gemini sends the usage so far with every event.
            self.count(
                usage.get("prompt_tokens"),
                usage.get("completion_tokens"),
                cached_of(usage, "prompt_tokens_details"),
            )
        return event

    @property
    def finished(self) -> bool:
        """See `Reading.finished`."""
        return self._seen_choice and not self._open

    def added(self, event: Event) -> object:
        """See `Reading.added`."""
        return [choice.get("delta") or choice.get("message") for choice in event["choices"]]

    def text(self, event: Event) -> str:
        """See `Reading.text`."""
        added = ""
        for choice in event["choices"]:
            said = choice.get("delta") or choice.get("message")
            if not choice.get("index") and isinstance(said, dict):
                # Where a model refuses to answer, OpenAI has its words in `refusal`.
                text = said.get("content") or said.get("refusal")
                added += text if isinstance(text, str) else ""
        return added


def _is_choice(choice: object, streams: bool) -> bool:
    """True if a choice has what later code relies on; all else is passed on as it is."""
    return (
        isinstance(choice, dict)
        and isinstance(choice.get("index", 0), int)
        and isinstance(choice.get("finish_reason"), (str, type(None)))
        and isinstance((choice.get("delta") or {}) if streams else choice.get("message"), dict)
    )


def completion_form(call: CompletionCall, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """A Create Completion call. Its answer is read by its text and not passed on.

    Raises:
        InvalidField: the provider cannot do something that is asked for.
    """
    return Form(PATH, chat_body(call, spec, dialect), ChatReading, lambda event: b"")


def chat_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """A chat request.

    Raises:
        InvalidRequest: the body is no JSON object.
        InvalidField: the provider would ignore a field.
    """
    asked = json_object(body)
    if call.form not in ("", UNMARKED):
        asked = fitted(asked, call.model, spec, dialect)
    check_chat(asked, dialect)
    with_usage = _wants_usage(asked)
    sent = _sent(asked, spec)
    limits = [asked.get("max_tokens"), asked.get("max_completion_tokens")]
    if dialect.needs_max_tokens and spec.max_output and limits == [None, None]:
        sent[dialect.max_tokens] = spec.max_output

    def answer(event: Event) -> Event | None:
        seen = _without_usage(event, with_usage)
        return None if seen is None else {**seen, "model": call.model}

    return _form(sent, answer)


def legacy_form(call: HttpCall, body: bytes, spec: UpstreamSpec, dialect: Dialect) -> Form:
    """A request of the old endpoint as a chat request.

    Raises:
        InvalidRequest: the body is no JSON object.
        InvalidField: a field has no counterpart in chat.
    """
    asked = {name: value for name, value in json_object(body).items() if value is not None}
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

    def answer(event: Event) -> Event | None:
        seen = _without_usage(event, with_usage)
        return None if seen is None else _as_text_completion(seen, call.model)

    return _form(sent, answer)


def _form(sent: Json, answer: Callable[[Event], Event | None]) -> Form:
    """`answer` makes the caller's event of one of the provider's, or None to drop it."""
    write, end = (unnamed, _DONE) if sent.get("stream") else (whole, b"")

    def render(event: Event) -> bytes:
        seen = answer(event)
        return b"" if seen is None else write(seen)

    return Form(PATH, sent, ChatReading, render, end)


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
