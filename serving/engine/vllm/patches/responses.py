"""What is borrowed of vLLM's handler of OpenAI's Responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

from fastapi import FastAPI
from vllm.config import ModelConfig
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.renderers import TokenizeParams

from serving.engine.bodies.responses import PATH
from serving.engine.vllm.patches.admission import change_bodies

# What vLLM's stream begins with before the engine has looked at the request.
OPENINGS = (b"event: response.created\n", b"event: response.in_progress\n")
# How the event begins that `tell_errors` adds.
ERROR_EVENT = b"event: error\n"

_tokenize_params = ResponsesRequest.build_tok_params


class _Failure(NamedTuple):
    """An event for vLLM's writer of events, which calls `model_dump_json` and names the type."""

    envelope: str
    type: str = "error"

    def model_dump_json(self, **_: Any) -> str:
        return self.envelope


def prepare(app: FastAPI) -> None:
    """Make the handler of vLLM's app keep nothing and tell its errors. A model that generates no
    text has no handler."""
    change_bodies(app, PATH, _without_nulls)
    ResponsesRequest.build_tok_params = _as_for_chats
    handler = getattr(app.state, "openai_serving_responses", None)
    if handler is not None:
        # Else vLLM, told so by its environment, stores every response whose request does not say
        # `store: false`, and never forgets one.
        handler.enable_store = False
        _tell_errors(handler)


def kept(app: FastAPI) -> list[Any]:
    """What the handler holds of responses, in all its tables."""
    handler = getattr(app.state, "openai_serving_responses", None)
    tables = ("response_store", "msg_store", "event_store", "background_tasks")
    return [] if handler is None else [one for name in tables for one in getattr(handler, name)]


def _as_for_chats(request: ResponsesRequest, config: ModelConfig) -> TokenizeParams:
    """A chat template writes the special tokens itself. vLLM leaves them out of a chat completion's
    prompt for that reason, and puts them before that of a response a second time."""
    return replace(_tokenize_params(request, config), add_special_tokens=False)


def _without_nulls(body: Any) -> Any:
    """Null is the same as absent. vLLM takes it for some fields (`background`, `truncation`), and
    fails when it repeats it in its answer."""
    if not isinstance(body, dict):
        return body
    return {name: value for name, value in body.items() if value is not None}


def _tell_errors(handler: Any) -> None:
    """End a stream that fails with an event of the same form as in a stream of a chat.

    vLLM gives the request to the engine when the stream has begun. What goes wrong from then on is
    an exception that its app cannot answer any more, and its own event for a failed generation is
    no event of this endpoint, so that making it is another exception.
    """
    stream = handler.responses_stream_generator

    async def stream_or_tell(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async for event in stream(*args, **kwargs):
                yield event
        except Exception as error:  # noqa: BLE001 - as vLLM does at the other endpoints
            yield _Failure(handler.create_streaming_error_response(error))

    def raise_it(error: Exception) -> NoReturn:
        raise error

    handler.responses_stream_generator = stream_or_tell
    handler._convert_generation_error_to_streaming_response = raise_it
