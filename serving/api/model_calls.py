"""Completions and chats of one model deployment, as scale-gp's `models` resource asks for them:
`POST /v4/models/{model}/completions` and `POST /v4/models/{model}/chat-completions`.

A completion is Create Completion's with flat parameters; a chat is its history and one prompt.
Both are answered in the same form. A whole answer repeats the prompt, as the SDK's documentation
has it; the events of a stream leave it empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from json.encoder import encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serving.api.asked import Ability, Sent, Target
from serving.api.chat_v4 import Messages, openai_messages
from serving.api.completion import MAX_INT, MAX_STOP_SEQUENCES
from serving.api.excerpt import excerpt
from serving.api.formed import CHAT_PATH, FormedRequest, refuse_long_text, refuse_template
from serving.api.said import Said, Usage
from serving.api.strict import null, raw_object, read_strictly, without_nulls
from serving.errors import InvalidField
from serving.wire.messages import (
    DEFAULT_TEMPERATURE,
    JSON_HEAD,
    CompletionCall,
    End,
    HttpCall,
    Sampling,
)

FORM = "model"

Penalty = Annotated[float, Meta(ge=-2, le=2)]


class Bindings(msgspec.Struct, forbid_unknown_fields=True):
    """Values for a model's own parameters; the models here have none."""

    bindings: msgspec.Raw


class ModelCompletion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/v4/models/{model}/completions`."""

    prompt: str
    chat_template: str | None = None
    chat_template_kwargs: msgspec.Raw = msgspec.field(default_factory=null)
    frequency_penalty: Penalty | None = None
    logprobs: bool | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_INT)] | None = None
    model_request_parameters: Bindings | None = None
    presence_penalty: Penalty | None = None
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    stop_sequences: (
        Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=MAX_STOP_SEQUENCES)]
        | None
    ) = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    # The SDK says that it is a float.
    top_k: Annotated[float, Meta(ge=1, le=MAX_INT)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None

    def refuse_what_is_not_done(self) -> None:
        """
        Raises:
            InvalidField: a field asks for something that no model here has.
        """
        refuse_template(self.chat_template)
        given = self.model_request_parameters
        bindings = given and raw_object("model_request_parameters.bindings", given.bindings)
        if bindings and bytes(bindings)[1:].lstrip() != b"}":
            raise InvalidField(
                "'model_request_parameters': the models here have no parameters of their own",
                param="model_request_parameters",
            )

        if self.top_k is not None and not self.top_k.is_integer():
            raise InvalidField("'top_k': must be a whole number", param="top_k")

    @property
    def heat(self) -> float:
        return DEFAULT_TEMPERATURE if self.temperature is None else self.temperature

    @property
    def most_likely(self) -> int | None:
        return None if self.top_k is None else int(self.top_k)


class ModelChat(ModelCompletion, forbid_unknown_fields=True, kw_only=True):
    """The body of `/v4/models/{model}/chat-completions`."""

    chat_history: Messages


_completion = msgspec.json.Decoder(ModelCompletion)
_chat = msgspec.json.Decoder(ModelChat)


@dataclass(frozen=True, slots=True)
class CompletionOfModel:
    """An `Asked` for one completion."""

    model: str
    given: ModelCompletion
    account_id: str | None = None

    @property
    def streams(self) -> bool:
        return bool(self.given.stream)

    def check(self, abilities: frozenset[Ability]) -> None:
        """See `Asked.check`."""
        refuse_long_text(self.given.prompt)
        if self.given.reasoning_effort and Ability.REASON not in abilities:
            raise InvalidField(
                f"model '{excerpt(self.model)}' has no reasoning effort", param="reasoning_effort"
            )

    def call(self, request_id: str, target: Target) -> tuple[CompletionCall, bytes]:
        """See `Asked.call`."""
        given = self.given
        call = CompletionCall(
            request_id=request_id,
            model=self.model,
            prompt=given.prompt,
            stream=self.streams,
            sampling=Sampling(
                temperature=given.heat,
                max_tokens=given.max_tokens,
                stop=tuple(given.stop_sequences or ()),
                top_p=given.top_p,
                top_k=given.most_likely,
                frequency_penalty=given.frequency_penalty,
                presence_penalty=given.presence_penalty,
                reasoning_effort=given.reasoning_effort,
            ),
            served_model=target.model,
            adapter=target.adapter,
            prompt_format=target.prompt_format,
            form=FORM,
        )
        return call, b""


def parse_model_completion(sent: Sent, body: bytes) -> CompletionOfModel:
    """Check a request body.

    Raises:
        InvalidRequest: the body is no JSON object (400).
        InvalidField: a field is missing, unknown, of the wrong type or out of range (422).
    """
    given = read_strictly(_completion, body)
    given.refuse_what_is_not_done()
    kwargs = raw_object("chat_template_kwargs", given.chat_template_kwargs)
    for name, value in (
        ("logprobs", given.logprobs),
        ("top_logprobs", given.top_logprobs),
        ("chat_template_kwargs", kwargs),
    ):
        if value:
            raise InvalidField(f"'{name}': is for chat-completions only", param=name)
    return CompletionOfModel(sent.name, given)


def parse_model_chat(sent: Sent, body: bytes) -> FormedRequest:
    """As `parse_model_completion`."""
    given = read_strictly(_chat, body)
    given.refuse_what_is_not_done()
    history = openai_messages(given.chat_history, "chat_history")
    fields = {
        "messages": [*history, {"role": "user", "content": given.prompt}],
        "temperature": given.heat,
        "max_tokens": given.max_tokens,
        "stop": given.stop_sequences or None,
        "top_p": given.top_p,
        "top_k": given.most_likely,
        "frequency_penalty": given.frequency_penalty,
        "presence_penalty": given.presence_penalty,
        "reasoning_effort": given.reasoning_effort,
        "logprobs": given.logprobs or None,
        "top_logprobs": given.top_logprobs or None,
        "chat_template_kwargs": raw_object("chat_template_kwargs", given.chat_template_kwargs),
    }
    return FormedRequest(
        model=sent.name,
        streams=bool(given.stream),
        form=FORM,
        path=CHAT_PATH,
        fields=without_nulls(fields),
        images=any(message.has_images for message in given.chat_history),
    )


def model_event(text: str, end: End | None = None, served_model: str = "") -> bytes:
    """One event of a stream; the last one (`end`) has finish reason and counts."""
    return b"data: " + _answer("", text, end) + b"\n\n"


def model_whole(call: CompletionCall, text: str, end: End) -> bytes:
    """A whole answer to a completion."""
    return _answer(call.prompt, text, end)


def _answer(prompt: str, text: str, end: End | None, logprobs: Any = None) -> bytes:
    quote = encode_basestring_ascii
    said = f'{{"completions":[[{quote(prompt)},[{quote(text)}]]],"choices":'
    if logprobs is None:
        said += "null"
    else:
        said += f'[{{"index":0,"logprobs":{msgspec.json.encode(logprobs).decode()}}}]'
    if end is None:
        said += ',"finish_reason":null,"prompt_tokens":null,"response_tokens":null}'
    else:
        said += (
            f',"finish_reason":{quote(end.finish_reason or "stop")}'
            f',"prompt_tokens":{end.prompt_tokens},"response_tokens":{end.completion_tokens}}}'
        )
    return said.encode()


class _Prompted(msgspec.Struct):
    messages: list[Any]


class ModelChatAnswer:
    """Writes the answer to a chat."""

    names = {  # noqa: RUF012 - nobody writes to it
        "stop": "stop_sequences",
        "messages": "chat_history",
        **{
            f"model_parameters.{name}": name
            for name in ("top_k", "frequency_penalty", "presence_penalty", "reasoning_effort")
        },
    }

    head = JSON_HEAD

    def __init__(self, call: HttpCall, body: bytes) -> None:
        self._body = body
        self._finish_reason: str | None = None
        self._usage = Usage()

    def event(self, said: Said) -> bytes:
        """The event for one of the engine's; empty if there is nothing to say."""
        self._usage = said.usage or self._usage
        if (choice := said.choice) is None:
            return b""
        self._finish_reason = choice.finish_reason or self._finish_reason
        if not choice.says:
            return b""
        return b"data: " + _answer("", choice.says, None, choice.logprobs) + b"\n\n"

    def end(self) -> bytes:
        """The last event, with finish reason and counts."""
        return model_event("", self._end())

    def whole(self, said: Said) -> bytes:
        """A whole answer."""
        choice = said.choices[0]
        self._usage, self._finish_reason = said.usage or Usage(), choice.finish_reason
        (*_, last) = msgspec.json.decode(self._body, type=_Prompted).messages
        return _answer(last["content"], choice.says, self._end(), choice.logprobs)

    def _end(self) -> End:
        used = self._usage
        return End(self._finish_reason, used.prompt_tokens, used.completion_tokens)
