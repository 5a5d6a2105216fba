"""The assumptions behind `serving/engine/vllm/patches/messages.py`, against the installed vLLM."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.entrypoints.anthropic import api_router
from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
)
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import VLLMValidationError

from serving.engine.bodies.blocks import PATHS
from serving.engine.vllm.patches.messages import correct_messages
from serving.engine.vllm.refusals import ERROR_EVENT

USER = {"role": "user", "content": "hi"}
SYSTEM_FIRST = "{% if messages[1].role == 'user' and messages[2].role == 'system' %}{{ raise() }}"
SYSTEM_FIRST += "{% endif %}"
ANY_ORDER = "{% for message in messages %}{{ message.content }}{% endfor %}"


def bare_handler() -> Any:
    """vLLM's own handler, with nothing behind it."""
    handler = object.__new__(AnthropicServingMessages)
    handler._merge_inline_system = False
    handler._disabled_thinking_effort = "none"
    return handler


class Template:
    """The template that the current request asks for."""

    asked: str | None = None

    def __call__(self) -> str | None:
        return self.asked


@pytest.fixture
def template() -> Template:
    return Template()


@pytest.fixture
async def handler(template: Template) -> Any:
    handler = bare_handler()
    app: Any = SimpleNamespace(state=SimpleNamespace(anthropic_serving_messages=handler))
    await correct_messages(app, template)
    return handler


def test_where_vllm_answers() -> None:
    assert {route.path for route in api_router.router.routes} == PATHS


async def test_a_model_that_does_not_generate_has_no_handler(template: Template) -> None:
    for state in (SimpleNamespace(), SimpleNamespace(anthropic_serving_messages=None)):
        app: Any = SimpleNamespace(state=state)
        await correct_messages(app, template)


# requests


def request(**more: Any) -> AnthropicMessagesRequest:
    return AnthropicMessagesRequest(model="m", messages=[USER], max_tokens=5, **more)


def broken() -> AnthropicMessagesRequest:
    result = {"type": "tool_result", "content": [{"type": "image", "source": 5}]}
    return AnthropicMessagesRequest(
        model="m", messages=[{"role": "user", "content": [result]}], max_tokens=5
    )


def test_vllm_itself_raises_whatever_comes_up() -> None:
    handler = bare_handler()
    with pytest.raises(AttributeError):
        handler.to_chat_completion_request(broken())


async def test_what_a_request_raises_is_the_requests_fault(handler: Any) -> None:
    for asked in (broken(), AnthropicCountTokensRequest(model="m", messages=broken().messages)):
        with pytest.raises(VLLMValidationError, match="the body is malformed"):
            handler.to_chat_completion_request(asked)
    for call in (handler.create_messages(broken()), handler.count_tokens(broken())):
        answer = await call
        assert isinstance(answer, ErrorResponse)
        assert answer.error.code == 400


async def test_pydantic_is_quoted_without_its_links_and_inputs(handler: Any) -> None:
    asked = request(vllm_xargs={"a": "secret"})
    asked.stop_sequences = ["secret", {"secret": 1}]  # type: ignore[list-item]
    answer = await handler.create_messages(asked)
    assert answer.error.code == 400
    assert "stop" in answer.error.message
    assert "valid string" in answer.error.message
    assert "secret" not in answer.error.message
    assert "pydantic" not in answer.error.message


async def test_a_sound_request_becomes_what_vllm_makes_of_it(handler: Any) -> None:
    asked = request(system="s", stop_sequences=["a"], top_k=3)
    made = handler.to_chat_completion_request(asked, merge_inline_system=True)
    plain = AnthropicServingMessages.to_chat_completion_request(asked, merge_inline_system=True)
    assert made.model_dump(exclude={"request_id"}) == plain.model_dump(exclude={"request_id"})


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("too long"), 400, "too long"),
        (VLLMValidationError("no such tool"), 400, "no such tool"),
        (KeyError("secret"), 500, "the engine failed on this request"),
        (RuntimeError("secret"), 500, "the engine failed on this request"),
    ],
)
async def test_what_comes_up_later_keeps_its_status_and_not_its_text(
    handler: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    message: str,
) -> None:
    async def fails(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(handler, "create_chat_completion", fails)
    monkeypatch.setattr(handler, "render_chat_request", fails)
    for call in (handler.create_messages(request()), handler.count_tokens(request())):
        answer = await call
        assert isinstance(answer, ErrorResponse)
        assert (answer.error.code, answer.error.message) == (status, message)


# chat templates


async def test_where_system_messages_go_depends_on_the_requests_template(
    handler: Any, template: Template
) -> None:
    assert not handler._merge_inline_system
    template.asked = SYSTEM_FIRST
    assert handler._merge_inline_system
    template.asked = ANY_ORDER
    assert not handler._merge_inline_system


async def test_the_effort_is_asked_for_before_the_first_request(template: Template) -> None:
    handler = bare_handler()
    handler._disabled_thinking_effort = None
    rendered: list[str] = []

    async def render(effort: str) -> Any:
        rendered.append(effort)
        return [len(rendered)], None

    handler._render_probe_prompt = render
    app: Any = SimpleNamespace(state=SimpleNamespace(anthropic_serving_messages=handler))
    await correct_messages(app, template)
    assert rendered[0] == "none"
    assert handler._disabled_thinking_effort == "none"
    rendered.clear()
    assert await handler._get_disabled_thinking_effort() == "none"
    assert not rendered


def test_what_the_handler_reads_of_itself() -> None:
    changed = "vLLM's handler knows its template otherwise: see correct_messages"
    for method in ("create_messages", "count_tokens"):
        text = inspect.getsource(getattr(AnthropicServingMessages, method))
        assert "merge_inline_system=self._merge_inline_system" in text, changed
        assert "self._get_disabled_thinking_effort()" in text, changed
        assert "self.to_chat_completion_request(" in text, changed


# streams

CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
FAILURE = 'data: {"error": {"message": "no such token", "code": 400}}\n\n'


def chunk(text: str) -> str:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}}
    return f"data: {json.dumps({**CHUNK, 'choices': [choice]})}\n\n"


async def events(handler: Any, *parts: str) -> list[str]:
    async def generate() -> AsyncIterator[str]:
        for part in parts:
            yield part

    return [event async for event in handler.message_stream_converter(generate())]


async def test_vllm_itself_takes_an_error_for_a_part_of_the_answer() -> None:
    (event,) = await events(bare_handler(), FAILURE)
    assert event.startswith("event: error")
    assert "validation error" in event, "vLLM reads errors in streams: see _Corrected"


async def test_an_error_reaches_who_called_the_app(handler: Any) -> None:
    assert await events(handler, FAILURE, "data: [DONE]\n\n") == [FAILURE]
    start, *more, last = await events(handler, chunk(""), chunk("a"), FAILURE, "data: [DONE]\n\n")
    assert start.startswith("event: message_start\n")
    assert [event.partition("\n")[0] for event in more] == [
        "event: content_block_start",
        "event: content_block_delta",
    ]
    assert last == FAILURE
    assert last.encode().startswith(ERROR_EVENT)


async def test_an_error_of_the_handler_is_one_too(handler: Any) -> None:
    for part in ("nonsense", "data: {}\n\n", "data: nonsense\n\n"):
        (event,) = await events(handler, part)
        assert event.encode().startswith(ERROR_EVENT)
        error = json.loads(event.removeprefix("data: "))["error"]
        assert error == {"message": "the engine failed on this request", "code": 500}


async def test_a_sound_stream_is_vllms(handler: Any) -> None:
    end = f"data: {json.dumps({**CHUNK, 'choices': []})}\n\n"
    parts = (chunk(""), chunk("a"), chunk("b"), end, "data: [DONE]\n\n")
    answer = await events(handler, *parts)
    assert answer == await events(bare_handler(), *parts)
    assert answer[-1] == 'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    assert '"output_tokens":1' in answer[-2]


# calls to tools


def answer(arguments: str) -> ChatCompletionResponse:
    function = {"name": "f", "arguments": arguments}
    message = {"role": "assistant", "tool_calls": [{"function": function}]}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    return ChatCompletionResponse(model="m", choices=[choice], usage=usage)


def test_vllm_itself_fails_on_a_call_that_was_cut_short() -> None:
    with pytest.raises(json.JSONDecodeError):
        bare_handler().messages_full_converter(answer('{"a": ["b", "c'))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ('{"a": [1, 2.5], "b": "\\u00e9"}', {"a": [1, 2.5], "b": "\u00e9"}),
        ('{"a": ["b", "c', {"a": ["b"]}),
        ("", {}),
        ("null", {}),
        ("[1]", {}),
        ("nonsense", {}),
        ('{"a": NaN}', {}),
        ('{"a": "\\ud800"}', {}),
        ("[" * 5000, {}),
    ],
)
async def test_of_a_call_that_was_cut_short_there_is_what_there_is(
    handler: Any, arguments: str, found: Any
) -> None:
    made = handler.messages_full_converter(answer(arguments)).model_dump(exclude_none=True)
    (block,) = made["content"]
    assert block["input"] == found
    assert made["stop_reason"] == "max_tokens"
