"""What the check of bodies knows of Anthropic's Messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.engine.bodies.check import BodyCheck
from serving.engine.bodies.limits import BodyLimits
from serving.errors import ContextLengthExceeded, InvalidRequest

PATH = "/v1/messages"
TEXT = {"type": "text", "text": "hi"}
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "A" * 4000},
}


def check(path: str = PATH, *, limits: dict[str, int] | None = None, **body: Any) -> bool:
    checks = BodyCheck(
        BodyLimits(**limits or {}),
        {},
        context=100,
        prompt_chars=1000,
        sequences=64,
        reserved={},
    )
    return checks.check(
        path, json.dumps({"model": "m", "max_tokens": 5, **body}).encode()
    ).constrained


def messages(*content: Any, role: str = "user") -> list[Any]:
    return [{"role": role, "content": [*content]}]


def result(*content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t", "content": [*content]}


@pytest.mark.parametrize("path", [PATH, f"{PATH}/count_tokens"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mcp_servers", [{"type": "url", "url": "https://example.com", "name": "a"}]),
        ("container", "c"),
        ("output_format", {"type": "json_schema", "schema": {}}),
    ],
)
def test_what_would_be_left_out_without_a_word_is_refused(
    path: str, field: str, value: Any
) -> None:
    with pytest.raises(InvalidRequest) as told:
        check(path, messages=messages(TEXT), **{field: value})
    assert told.value.param == field
    assert not check(path, messages=messages(TEXT), **{field: None})
    assert not check("/v1/chat/completions", messages=messages(TEXT), **{field: value})


@pytest.mark.parametrize("path", [PATH, f"{PATH}/count_tokens"])
def test_ordinary_bodies_pass(path: str) -> None:
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "b"}}
    reference = {"type": "tool_reference", "tool_name": "f"}
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "system", "content": [TEXT]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "a"}, TEXT, use]},
        {"role": "user", "content": [result(TEXT, IMAGE, reference), TEXT, IMAGE]},
        {"role": "user", "content": [{"type": "tool_result", "content": "text"}]},
        {"role": "user", "content": [{"type": "tool_result"}]},
    ]
    assert not check(path, messages=chat, system=[{**TEXT, "cache_control": {}}])
    assert check(path, messages=chat, tools=[TOOL], tool_choice={"type": "tool", "name": "f"})
    assert check(path, messages=chat, output_config={"format": {"type": "json_schema"}})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": messages(result(5))}, "a block without a type"),
        ({"messages": messages(result({"type": ["text"]}))}, "a block without a type"),
        ({"messages": messages(result({"type": "document"}))}, "a block of the type 'document'"),
        ({"messages": messages(result({"type": "x" * 999}))}, "x" * 64 + "'"),
        ({"messages": messages(result({"type": "text", "text": 5}))}, "without 'text'"),
        ({"messages": messages(result({"type": "text"}))}, "without 'text'"),
        ({"messages": messages(result({"type": "image", "source": 5}))}, "an image block without"),
        ({"messages": messages({"type": "image", "source": {"type": "file"}})}, "an image block"),
        ({"messages": messages({"type": "image", "source": {"type": []}})}, "an image block"),
        ({"messages": messages(result({"type": "tool_reference"}))}, "without 'tool_name'"),
        ({"messages": messages(result(TEXT), role="assistant")}, "not in a user message"),
        ({"messages": messages(IMAGE, role="system")}, "text blocks only in a system message"),
        ({"messages": messages({"type": "tool_addition"}, role="system")}, "list the tools"),
        ({"messages": messages({"type": "tool_removal"}, role="user")}, "list the tools"),
        ({"system": [TEXT, IMAGE]}, "'system': takes text blocks only"),
        ({"tool_choice": {"type": "any"}}, "which needs 'tools'"),
        ({"tool_choice": {"type": "tool", "name": "f"}, "tools": []}, "which needs 'tools'"),
        ({"tool_choice": {"type": "tool", "name": "g"}, "tools": [TOOL]}, "not among 'tools'"),
    ],
)
def test_what_vllm_would_fail_on_or_leave_out(body: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(**{"messages": messages(TEXT), **body})
    assert said in caught.value.message
    assert caught.value.status == 400
    check("/v1/chat/completions", **{**body, "messages": []})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": 5},
        {"messages": [5, None, {"content": 5}, {"role": ["user"], "content": [5, None]}]},
        {"messages": messages({"type": ["tool_result"], "content": [5]})},
        {"system": 5, "tool_choice": 5, "tools": 5},
        {"system": [5, None], "tool_choice": {"type": ["any"]}},
    ],
)
def test_what_is_no_body_at_all_is_left_to_vllm(body: dict[str, Any]) -> None:
    check(**body)


# sizes


def test_texts_are_measured_against_the_context_and_images_are_not() -> None:
    check(messages=messages(TEXT, IMAGE, result(IMAGE)))
    for body in (
        {"system": "x" * 1001},
        {"system": [{"type": "text", "text": "x" * 1001}]},
        {"messages": messages(result({"type": "text", "text": "x" * 1001}))},
        {"messages": messages({"type": "text", "text": "a", "source": "x" * 1001})},
    ):
        with pytest.raises(ContextLengthExceeded, match="characters"):
            check(**body)


@pytest.mark.parametrize(
    ("limits", "body", "said"),
    [
        ({"messages": 2}, {"messages": messages() * 3}, "has 3 messages"),
        ({"parts": 2}, {"messages": messages(TEXT, TEXT, TEXT)}, "has 3 content parts"),
        ({"parts": 2}, {"messages": messages(result(TEXT, TEXT))}, "has 3 content parts"),
        ({"tools": 1}, {"tools": [TOOL, TOOL]}, "'tools': has 2 items"),
        ({"stops": 1}, {"stop_sequences": ["a", "b"]}, "'stop_sequences': has 2 items"),
        ({"stop_chars": 3}, {"stop_sequences": ["abcd"]}, "a string of 4 characters"),
        ({"text_bytes": 80}, {"system": "x" * 100}, "'system': has 102 bytes"),
        ({}, {"system": [TEXT, {"a": 2**70}]}, "more than 64 bits"),
        ({}, {"max_tokens": 2**63}, "more than 64 bits"),
        (
            {"pattern_size": 9},
            {"tools": [{**TOOL, "input_schema": {"pattern": "a{99}"}}]},
            "at most 9",
        ),
        (
            {"pattern_size": 9},
            {"output_config": {"format": {"schema": {"pattern": "a{1,5000}"}}}},
            "at most 9",
        ),
        ({}, {"output_config": {"format": {"schema": {"$ref": "#"}}}}, "refers to itself"),
        ({}, {"tools": [{**TOOL, "input_schema": {"$ref": "#"}}]}, "refers to itself"),
    ],
)
def test_sizes_and_counts(limits: dict[str, int], body: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(limits=limits, **{"messages": messages(TEXT), **body})
    assert said in caught.value.message
