"""LLM Engine's API, as the `scale-llm-engine` client speaks it: completions, whole and streamed,
and the list of model endpoints.

Field names, ranges and defaults are the client's. The model's name is in the query. A prompt
reaches every model as it is, instruct models too. `guided_*` are vLLM's structured outputs.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta

from serving.api.asked import Sent
from serving.api.completion import MAX_INT, MAX_MODEL_ID
from serving.api.dialect import Dialect
from serving.api.envelope import error_body
from serving.api.formed import COMPLETIONS_PATH, FormedRequest
from serving.api.models import ModelEntry
from serving.api.pages import Ask, Page, View, json_page
from serving.api.said import Choice, Said, Usage
from serving.api.sse import openai_error_event
from serving.api.strict import null, raw_object, read_strictly, without_nulls
from serving.errors import InvalidField, ServingError
from serving.wire.messages import DEFAULT_TEMPERATURE, JSON_HEAD, HttpCall

FORM = "llm-engine"
MAX_STOPS = 16

Penalty = Annotated[float, Meta(ge=0, le=2)]


class CompletionV1(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/v1/llm/completions-sync` and `/v1/llm/completions-stream`."""

    prompt: str
    max_new_tokens: Annotated[int, Meta(ge=1, le=MAX_INT)]
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop_sequences: (
        Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=MAX_STOPS)] | None
    ) = None
    return_token_log_probs: bool | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_INT)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    include_stop_str_in_output: bool | None = None
    guided_json: msgspec.Raw = msgspec.field(default_factory=null)
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    skip_special_tokens: bool | None = None


_decoder = msgspec.json.Decoder(CompletionV1)


def parse_sync(sent: Sent, body: bytes) -> FormedRequest:
    """Check a request for a whole completion.

    Raises:
        InvalidRequest: the body is no JSON object (400).
        InvalidField: a field is missing, unknown, of the wrong type or out of range (422).
    """
    return _parse(sent, body, streams=False)


def parse_stream(sent: Sent, body: bytes) -> FormedRequest:
    """`parse_sync` for a stream."""
    return _parse(sent, body, streams=True)


def _parse(sent: Sent, body: bytes, *, streams: bool) -> FormedRequest:
    (model, *_) = parse_qs(sent.query.decode("latin-1")).get("model_endpoint_name", [""])
    if not model or len(model) > MAX_MODEL_ID:
        raise InvalidField(
            f"the query's 'model_endpoint_name' must have 1 to {MAX_MODEL_ID} characters",
            param="model_endpoint_name",
        )
    given = read_strictly(_decoder, body)
    fields = {
        "prompt": given.prompt,
        "max_tokens": given.max_new_tokens,
        "temperature": DEFAULT_TEMPERATURE if given.temperature is None else given.temperature,
        "stop": given.stop_sequences or None,
        "presence_penalty": given.presence_penalty,
        "frequency_penalty": given.frequency_penalty,
        # -1 and 0 mean all tokens.
        "top_k": given.top_k if given.top_k is not None and given.top_k > 0 else None,
        "top_p": given.top_p,
        "include_stop_str_in_output": given.include_stop_str_in_output or None,
        "skip_special_tokens": False if given.skip_special_tokens is False else None,
        # Of the token itself, and of no other.
        "logprobs": 0 if given.return_token_log_probs else None,
        "structured_outputs": _guidance(given),
    }
    return FormedRequest(model, streams, FORM, COMPLETIONS_PATH, without_nulls(fields), counts=True)


def _guidance(given: CompletionV1) -> dict[str, Any] | None:
    asked = without_nulls(
        {
            "json": raw_object("guided_json", given.guided_json),
            "regex": given.guided_regex,
            "choice": given.guided_choice,
            "grammar": given.guided_grammar,
        }
    )
    if len(asked) > 1:
        names = [f"'guided_{name}'" for name in asked]
        raise InvalidField(
            f"{' and '.join(names)} exclude each other", param=f"guided_{list(asked)[1]}"
        )
    return asked or None


class CompletionAnswer:
    """Writes the answer. An event of the engine's that has several tokens becomes as many where
    their probabilities are asked for."""

    names = {  # noqa: RUF012 - nobody writes to it
        "max_tokens": "max_new_tokens",
        "stop": "stop_sequences",
        "logprobs": "return_token_log_probs",
        "structured_outputs": "guided_json",
    }

    head = JSON_HEAD

    def __init__(self, call: HttpCall, body: bytes) -> None:
        self._id = encode_basestring_ascii(call.request_id)
        self._usage: Usage | None = None

    def event(self, said: Said) -> bytes:
        """The events for one of the engine's; empty if there is nothing to say."""
        self._usage = said.usage or self._usage
        if (choice := said.choice) is None:
            return b""
        tokens = _tokens(choice) or []
        if not choice.says and not tokens:
            return b""
        *earlier, last = tokens or (None,)
        return b"".join(self._event("", at) for at in earlier) + self._event(choice.says, last)

    def end(self) -> bytes:
        """The last event."""
        return self._event("", None, finished=True)

    def whole(self, said: Said) -> bytes:
        """A whole answer."""
        self._usage, choice = said.usage, said.choices[0]
        tokens = _tokens(choice)
        return (
            f'{{"request_id":{self._id},"output":{{"text":{encode_basestring_ascii(choice.says)}'
            f',{self._counts()},"tokens":{json.dumps(tokens)}}}}}'
        ).encode()

    def _event(self, text: str, token: dict[str, Any] | None, *, finished: bool = False) -> bytes:
        return (
            f'data: {{"request_id":{self._id},"output":{{"text":{encode_basestring_ascii(text)}'
            f',"finished":{"true" if finished else "false"},{self._counts()}'
            f',"token":{json.dumps(token)}}},"error":null}}\n\n'
        ).encode()

    def _counts(self) -> str:
        used = self._usage
        prompt, completion = (
            ("null", "null") if used is None else (used.prompt_tokens, used.completion_tokens)
        )
        return f'"num_prompt_tokens":{prompt},"num_completion_tokens":{completion}'


def _tokens(choice: Choice) -> list[dict[str, Any]] | None:
    said = choice.logprobs
    if not isinstance(said, dict):
        return None
    return [
        {"token": token, "log_prob": probability}
        for token, probability in zip(said["tokens"], said["token_logprobs"], strict=True)
    ]


def stream_error_body(error: ServingError, request_id: str) -> bytes:
    """A failure inside a stream, as the client's `StreamError`."""
    content = {"error": error.message, "timestamp": datetime.now(UTC).isoformat()}
    failure = {"status_code": error.status, "content": content}
    return json.dumps({"request_id": request_id, "output": None, "error": failure}).encode()


LLM_ENGINE = Dialect(error_body, openai_error_event, event_body=stream_error_body)


def model_endpoints(view: View, ask: Ask) -> Page:
    """`GET /v1/llm/model-endpoints`."""
    entries = view.entries(everything=False)
    return json_page({"model_endpoints": [model_endpoint(entry) for entry in entries]})


def one_model_endpoint(view: View, ask: Ask) -> Page:
    """`GET /v1/llm/model-endpoints/{model}`."""
    return json_page(model_endpoint(view.entry(ask.name)))


def model_endpoint(entry: ModelEntry) -> dict[str, Any]:
    """One entry, with the fields of the client's `GetLLMEndpointResponse`.

    The client knows no framework but five; what does not run on vLLM is called by the one of them
    that is the least specific, and `runtime` has the truth. So it is with `source`.
    """
    own = entry.runtime == "vllm"
    return {
        "id": entry.id,
        "name": entry.id,
        "model_name": entry.parent or entry.root,
        "source": "hugging_face",
        "status": "READY" if entry.ready else "UPDATE_IN_PROGRESS",
        "inference_framework": "vllm" if own else "text_generation_inference",
        "inference_framework_tag": None,
        "num_shards": None,
        "quantize": None,
        "spec": None,
        "chat_template_override": None,
        "runtime": entry.runtime,
        "kind": entry.kind,
        "max_model_len": entry.context,
    }
