"""What `patches/responses.py` assumes of vLLM's handler, against the installed version."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses import api_router
from vllm.entrypoints.openai.responses.protocol import (
    ResponsesRequest,
    StreamingResponsesResponse,
)
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import GenerationError, VLLMValidationError

from serving.engine.bodies.responses import PATH
from serving.engine.vllm.patches import responses


class Handler(OpenAIServingResponses):  # type: ignore[misc]  # vLLM is not typed for us
    """vLLM's handler without an engine; `events` stand for what its stream is made of."""

    def __init__(self, *events: Any) -> None:
        self.events = events
        self.enable_store = True
        self.response_store, self.msg_store, self.event_store = {}, {}, {}
        self.background_tasks = {}
        self.asked: list[ResponsesRequest] = []

    async def responses_stream_generator(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        for event in self.events:
            if isinstance(event, GenerationError):
                self._convert_generation_error_to_streaming_response(event)
            if isinstance(event, Exception):
                raise event
            yield event

    async def create_responses(self, request: Any, raw_request: Any) -> Any:
        self.asked.append(request)
        return self.responses_stream_generator(request)


def app_of(handler: Handler) -> FastAPI:
    app = FastAPI()
    api_router.attach_router(app)
    app.state.openai_serving_responses = handler
    app.state.enable_server_load_tracking = False
    responses.prepare(app)
    return app


def ask(handler: Handler, **fields: Any) -> str:
    client = TestClient(app_of(handler))
    return client.post(PATH, json={"model": "m", "input": "hi", "stream": True, **fields}).text


@pytest.mark.parametrize(
    ("error", "status"),
    [(VLLMValidationError("no", parameter="seed"), 400), (GenerationError("broken"), 500)],
)
def test_what_goes_wrong_in_a_stream_is_told_in_it(error: Exception, status: int) -> None:
    event = SimpleNamespace(type="response.created", model_dump_json=lambda **_: "{}")
    said = ask(Handler(event, error))
    created, failed, end = said.split("\n\n")
    assert (created + "\n").encode().startswith(responses.OPENINGS)
    assert (failed + "\n").encode().startswith(responses.ERROR_EVENT)
    assert json.loads(failed.partition("data: ")[2])["error"]["code"] == status
    assert not end


def test_null_is_absent() -> None:
    """With null for `background` or `truncation`, vLLM fails to write its answer."""
    handler = Handler()
    ask(handler, background=None, truncation=None, service_tier=None, store=None)
    (request,) = handler.asked
    assert (request.background, request.truncation) == (False, "disabled")
    fields = ("background", "truncation", "service_tier")
    assert not request.model_fields_set & {*fields, "store"}


def test_a_prompt_begins_with_its_special_tokens_once() -> None:
    handler, config = Handler(), SimpleNamespace(max_model_len=100)
    ask(handler)
    (request,) = handler.asked
    assert not request.build_tok_params(config).add_special_tokens
    assert responses._tokenize_params(request, config).add_special_tokens, "the patch may go"
    chat = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "hi"}])
    assert not chat.build_tok_params(config).add_special_tokens


def test_a_body_that_is_no_object_is_left_to_vllm() -> None:
    assert TestClient(app_of(Handler())).post(PATH, json=[1]).status_code in (400, 422)


def test_nothing_is_stored_unless_the_handler_may() -> None:
    handler = Handler()
    app = app_of(handler)
    assert not handler.enable_store
    create = inspect.getsource(OpenAIServingResponses._create_responses)
    assert "if request.store and not self.enable_store:" in create
    assert not responses.kept(app)
    for table in (handler.response_store, handler.msg_store, handler.event_store):
        table["resp_1"] = object()
        assert len(responses.kept(app)) == 1
        table.clear()


def test_the_handlers_own_tables_are_all_looked_at() -> None:
    """Whatever it keeps is in a dictionary, of which a new version may have one more."""
    made = inspect.getsource(OpenAIServingResponses.__init__)
    assert made.count("= {}\n") == 4, "one more table: see kept"
    looked_at = inspect.getsource(responses.kept)
    for table in ("response_store", "msg_store", "event_store", "background_tasks"):
        assert f"self.{table}" in made
        assert table in looked_at


def test_a_failed_generation_is_no_event_of_vllms() -> None:
    """If it has become one, `tell_errors` may go."""
    stream = inspect.getsource(OpenAIServingResponses.responses_stream_generator)
    assert "TypeAdapter(StreamingResponsesResponse).validate_json(error_json)" in stream
    assert ErrorResponse not in typing.get_args(StreamingResponsesResponse)


def test_a_model_that_generates_nothing_has_no_handler() -> None:
    app = FastAPI()
    responses.prepare(app)
    assert responses.kept(app) == []
