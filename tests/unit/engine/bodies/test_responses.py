"""What is refused of the bodies of OpenAI's Responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.engine.bodies.check import BodyCheck
from serving.engine.bodies.limits import BodyLimits
from serving.engine.bodies.responses import PATH
from serving.errors import ContextLengthExceeded, InvalidRequest

USER = {"role": "user", "content": "hi"}


def check(**fields: Any) -> bool:
    checks = BodyCheck(BodyLimits(), {}, context=100, prompt_chars=30_000, sequences=4, reserved={})
    body = {"model": "m", "input": "hi", **fields}
    return checks.check(PATH, json.dumps(body).encode()).constrained


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"store": False, "background": False},
        {"store": None, "background": None, "previous_response_id": None, "conversation": None},
        {"input": [USER] * 600},  # more than a request may have prompts
        {"instructions": "x" * 30_000, "max_output_tokens": 1},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        {"text": "odd", "input": [USER, 5, None]},
    ],
)
def test_what_needs_no_storing_passes(fields: dict[str, Any]) -> None:
    assert not check(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store", True),
        ("store", "true"),
        ("store", 1),
        ("background", True),
        ("background", "yes"),
        ("background", 1.0),
        ("previous_response_id", "resp_1"),
        ("previous_response_id", ""),
        ("conversation", "conv_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1"}),
        ("previous_input_messages", [{}]),
        ("input", [USER, {"type": "item_reference", "id": "msg_1"}]),
        ("max_output_tokens", 0),
        ("max_output_tokens", -5),
        ("max_output_tokens", 2**63),
        ("input", [USER] * 1025),
        ("input", [{"role": "user", "content": [{"type": "input_text"}] * 1025}]),
        ("tools", [{"type": "function", "name": "f"}] * 129),
        ("tool_choice", {"type": "allowed_tools", "mode": "auto", "tools": []}),
        ("text", {"format": {"type": "json_schema", "schema": {"pattern": "a{1,5000}"}}}),
        ("text", {"format": {"type": "json_schema", "schema": {"enum": ["a"] * 1001}}}),
        ("text", {"format": {"type": "json_schema", "schema": {"$ref": "#"}}}),
    ],
)
def test_the_field_is_named_that_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"'{field}'") as caught:
        check(**{field: value})
    assert (caught.value.status, caught.value.param) == (400, field)


@pytest.mark.parametrize("field", ["input", "instructions"])
def test_a_text_that_fits_no_context_is_refused(field: str) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        check(**{field: "x" * 30_001})
    assert caught.value.param == field


def test_an_answer_with_a_format_is_constrained() -> None:
    assert check(text={"format": {"type": "json_object"}})
    assert check(text={"format": {"type": "json_schema", "name": "n", "schema": {}}})
