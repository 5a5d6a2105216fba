"""How what vLLM's app answers reaches the router: refusals before the first byte, with a status."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response, StreamingResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import QueueOverflowError, VLLMValidationError

from serving.engine.bodies.check import BodyCheck, Checked
from serving.engine.bodies.limits import BodyLimits
from serving.engine.interface import Tally
from serving.engine.vllm.openai_app import PART, Current, OpenAIApp
from serving.engine.vllm.patches.logprobs import PromptLogprobs
from serving.engine.vllm.refusals import MAX_MESSAGE
from serving.engine.vllm.usage import CallUsage
from serving.errors import (
    EngineError,
    EngineFailed,
    InvalidField,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServingError,
)
from serving.wire.messages import Head, HttpCall

PATH = "/v1/completions"


class Recorded:
    writable = True

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.body = b""
        self.sizes: list[int] = []

    def head(self, head: Head) -> None:
        assert not self.body
        self.heads.append(head)

    def data(self, data: bytes) -> None:
        assert self.heads, "bytes before the head"
        self.body += data
        self.sizes.append(len(data))

    async def drained(self) -> None:
        pass


async def ask(
    answer: Response | Exception,
    *,
    path: str = PATH,
    errored: bool = False,
    constrained: bool = False,
) -> Recorded:
    """Let vLLM's app answer so."""
    app = FastAPI()

    @app.post(path)
    async def handle() -> Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    llm: Any = SimpleNamespace(errored=errored)
    bodies = BodyCheck(BodyLimits(), {}, context=9, prompt_chars=None, sequences=None, reserved={})
    reply = Recorded()
    running = OpenAIApp(app, llm, Current(), bodies, PromptLogprobs(9, 9))
    call, usage = HttpCall("r", "m", "POST", path), CallUsage()
    await running.run(call, b"{}", reply, Tally(), usage, None, [], Checked(constrained))
    return reply


async def refusal(answer: Response | Exception, **more: Any) -> ServingError:
    reply = None
    with pytest.raises(ServingError) as caught:
        reply = await ask(answer, **more)
    assert reply is None
    return caught.value


def stream(*events: Any) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        for event in events:
            yield f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


def as_event(error: Exception) -> str:
    """As vLLM's `create_streaming_error_response` writes it."""
    return json.dumps(create_error_response(error).model_dump())


def as_response(error: Exception) -> JSONResponse:
    said = create_error_response(error)
    return JSONResponse(said.model_dump(), status_code=said.error.code)


BAD = VLLMValidationError("logprobs is too large", parameter="logprobs", value=30)


async def test_a_large_answer_goes_out_in_parts() -> None:
    body = b"".join(b"%07d" % number for number in range(PART // 4))
    reply = await ask(Response(body))
    assert reply.body == body
    assert reply.sizes == [PART, len(body) - PART]


async def test_an_answer_passes() -> None:
    reply = await ask(JSONResponse({"a": 1}))
    assert ([head.status for head in reply.heads], reply.body) == ([200], b'{"a":1}')
    reply = await ask(stream({"a": 1}, "[DONE]"))
    assert len(reply.heads) == 1
    assert reply.body == b'data: {"a": 1}\n\ndata: [DONE]\n\n'
    reply = await ask(Response())
    assert ([head.status for head in reply.heads], reply.body) == ([200], b"")


@pytest.mark.parametrize(
    "answer", [lambda: as_response(BAD), lambda: stream(as_event(BAD), "[DONE]")]
)
async def test_a_refusal_has_vllms_status_and_words_whole_or_streamed(answer: Any) -> None:
    error = await refusal(answer())
    assert type(error) is InvalidRequest
    assert error.message == "logprobs is too large (parameter=logprobs, value=30)"
    assert error.param == "logprobs"
    assert not error.retryable


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (404, NotFound),
        (409, InvalidRequest),
        (422, InvalidField),
        (500, EngineError),
        (501, InvalidRequest),
        (505, InvalidRequest),
        (503, Overloaded),
    ],
)
async def test_every_status_has_an_error(status: int, kind: type[ServingError]) -> None:
    said = {"error": {"message": "because", "type": "t", "param": None, "code": status}}
    for answer in (JSONResponse(said, status), stream(said)):
        error = await refusal(answer)
        assert (type(error), error.message) == (kind, "because")


async def test_a_full_queue_may_be_asked_again() -> None:
    error = await refusal(as_response(QueueOverflowError()))
    assert isinstance(error, Overloaded)
    assert error.retryable
    assert "busy" in error.message


async def test_an_error_of_the_engine_on_one_request_is_not_tried_again() -> None:
    error = await refusal(JSONResponse({"error": {"message": "", "code": 500}}, 500))
    assert error.message == "the engine failed on this request"
    assert not error.retryable


@pytest.mark.parametrize(
    "body", [b'{"detail": "There was an error"}', b"", b"[]", b"\xff", b'{"error": 5}']
)
async def test_what_is_no_envelope_becomes_one(body: bytes) -> None:
    error = await refusal(Response(body, 400, media_type="application/json"))
    assert isinstance(error, InvalidRequest)
    assert error.message == ("There was an error" if b"detail" in body else error.message) != ""


async def test_a_message_is_cut() -> None:
    error = await refusal(as_response(ValueError("x" * 100_000)))
    assert len(error.message) == MAX_MESSAGE


async def test_an_error_after_the_first_byte_ends_the_stream() -> None:
    reply = Recorded()
    with pytest.raises(InvalidRequest, match="too large"):
        reply = await ask(stream({"a": 1}, as_event(BAD), {"never": "seen"}))
    assert reply.body == b""


@pytest.mark.parametrize("answer", [lambda: as_response(BAD), lambda: stream(as_event(BAD))])
async def test_what_a_caller_did_wrong_is_told_of_a_dead_engine_too(answer: Any) -> None:
    assert isinstance(await refusal(answer(), errored=True), InvalidRequest)


async def test_a_dead_engine_is_told_as_such() -> None:
    for answer in (
        JSONResponse({"error": {"message": "", "code": 500}}, 500),
        stream({"error": {"message": "", "code": 500}}),
        RuntimeError("dead"),
    ):
        assert isinstance(await refusal(answer, errored=True), EngineFailed)


async def test_a_grammar_that_takes_no_token_is_the_callers() -> None:
    said = {"error": {"message": "Internal server error", "code": 500}}
    for answer in (JSONResponse(said, 500), stream(said)):
        error = await refusal(answer, constrained=True)
        assert isinstance(error, InvalidRequest)
        assert "schema" in error.message
    assert isinstance(await refusal(JSONResponse(said, 500)), EngineError)


async def test_what_nothing_handles_is_raised_for_the_log() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        await ask(RuntimeError("a bug"))


# Responses

RESPONSES = "/v1/responses"
OPENINGS = tuple(
    f'event: {name}\ndata: {{"type":"{name}"}}\n\n'
    for name in ("response.created", "response.in_progress")
)
DELTA = 'event: response.output_text.delta\ndata: {"delta":"event: error"}\n\n'


def response_stream(*events: str) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        for event in events:
            yield event

    return StreamingResponse(parts(), media_type="text/event-stream")


async def test_a_response_is_passed_on_from_its_first_event_to_its_last() -> None:
    events = (*OPENINGS, DELTA, DELTA)
    reply = await ask(response_stream(*events), path=RESPONSES)
    assert len(reply.heads) == 1
    assert reply.body == "".join(events).encode()


@pytest.mark.parametrize("opened", [0, 1, 2])
async def test_a_response_that_fails_before_it_says_anything_has_a_status(opened: int) -> None:
    failure = f"event: error\ndata: {as_event(BAD)}\n\n"
    error = await refusal(response_stream(*OPENINGS[:opened], failure), path=RESPONSES)
    assert type(error) is InvalidRequest
    assert "logprobs is too large" in error.message
    assert error.param == "logprobs"
