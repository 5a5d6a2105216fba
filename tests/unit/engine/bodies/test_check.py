"""What the check of OpenAI bodies refuses, and what it lets pass: values, kinds and references."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import BaseModel

from serving.engine.bodies.check import BodyCheck
from serving.engine.bodies.fields import LIST, OBJECT, SCALAR, check_kind, fields_of, kinds_of
from serving.engine.bodies.limits import BodyLimits
from serving.errors import InvalidRequest
from tests.unit.engine.bodies.checking import (
    FIELDS,
    MESSAGE,
    PATH,
    check,
    refusal,
    schema,
)


def test_an_ordinary_body_passes() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "h\u00e9 \U0001f600"}]}],
        "temperature": 0.5,
        "seed": 2**63 - 1,
        "stop": ["a", "b"],
        "logit_bias": {"5": -100},
        "stream": True,
        "unknown": {"a": [1, None, 2.5]},
    }
    assert not check(body)
    assert check({**body, "response_format": {"type": "json_object"}})


# values


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64, 2**70, int("9" * 300)])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: {"top_k": value},
        lambda value: {"any_field_of_an_upgrade": {"a": [{"b": value}]}},
        lambda value: {"stop_token_ids": [*range(40), value]},
        lambda value: {"stop_token_ids": [value, *range(40)]},
        lambda value: {"stop_token_ids": [1] * 20 + ["a", value]},
        lambda value: {"prompt": [[1, 2], [value]]},
    ],
)
def test_integers_have_64_bits(value: int, wrap: Any) -> None:
    body = wrap(value)
    error = refusal(body)
    (name,) = body
    assert error.param == name
    assert "64 bit" in error.message or "out of range" in error.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"stop": "\xed\xa0\x80"}',
        b'{"stop": ["\xff"]}',
        b'{"a": {"\xed\xa0\x80": 1}}',
        b'{"\xed\xa0\x80": 1}',
        rb'{"stop": "\ud800"}',
        rb'{"vllm_xargs": {"a": "x\udfffy"}}',
        rb'{"a": {"\uD83Dx": 1}}',
        rb'{"\ud800": 1}',
    ],
)
def test_strings_are_utf_8(body: bytes) -> None:
    assert "UTF-8" in (message := refusal(body).message) or "surrogate" in message


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert not check(rb'{"stop": "\ud83d\ude00", "user": "\\ud800"}')


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_numbers_are_finite(number: str) -> None:
    refusal(b'{"temperature": %s}' % number.encode())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"null", b'"a"', b"\xff", b"{}x"])
def test_a_body_is_a_json_object(body: bytes) -> None:
    refusal(body)


@pytest.mark.parametrize(
    ("begin", "item", "said"),
    [
        (b'"messages": [0', b",[]", "1000002 opening brackets and braces"),
        (b'"messages": [0', b",{}", "1000002 opening brackets and braces"),
        (b'"prompt": [0', b",1", "1000000 commas"),
    ],
)
def test_a_body_of_a_million_values_is_refused_unread(begin: bytes, item: bytes, said: str) -> None:
    error = refusal(b"{" + begin + item * 1_000_000 + b"]}")
    assert error.message.startswith(f"the body has {said}")


def test_the_number_of_fields_is_bounded() -> None:
    assert "257 fields" in refusal(dict.fromkeys(map(str, range(257)), 1)).message


@pytest.mark.parametrize("depth", [81, 500, 90_000])
def test_nesting_is_bounded(depth: int) -> None:
    assert "nested" in refusal(b'{"a": ' + b"[" * depth + b"]" * depth + b"}").message
    assert not check(b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}")


# kinds


@pytest.mark.parametrize("value", [False, 0, "x", [], [{}], 1.5])
def test_a_value_of_another_kind_is_refused_by_name(value: Any) -> None:
    error = refusal({"structured_outputs": value})
    assert error.param == "structured_outputs"
    assert "must be an object" in error.message


def test_null_is_absent() -> None:
    assert not check({"structured_outputs": None, "stop": None})


class Inner(BaseModel):
    a: int


class Model(BaseModel):
    inner: Inner | None = None
    several: list[Inner] | str = "a"
    anything: Any = None


def test_kinds_come_from_the_types() -> None:
    fields = fields_of([Model])
    assert fields["inner"] == {OBJECT}
    assert fields["several"] == {LIST, SCALAR}
    check_kind("anything", [1], fields)
    with pytest.raises(InvalidRequest):
        check_kind("several", {}, fields)


def test_a_type_without_a_rule_is_an_error() -> None:
    with pytest.raises(TypeError, match="no rule"):
        kinds_of(range(3))


# references

A = {"$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"type": "string"}]},
        {"allOf": [{"oneOf": [{"$ref": "#"}]}]},
        {**A, "$defs": {"a": A}},
        {**A, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": A}},
        {"properties": {"x": A}, "$defs": {"a": {"anyOf": [{"type": "null"}, A]}}},
        {"items": {"$ref": "#/items"}},
        {"$defs": {"a/b~c": {"$ref": "#/$defs/a~1b~0c"}}},
        {"anyOf": [{"$ref": "#/anyOf/0"}]},
    ],
)
def test_a_schema_that_refers_to_itself_alone_is_refused(value: Any) -> None:
    for body in (
        schema(value),
        {"structured_outputs": {"json": value}},
        {"structured_outputs": {"json": json.dumps(value)}},
        {"tools": [{"function": {"parameters": value}}]},
    ):
        assert "refers to itself" in refusal(body).message


@pytest.mark.parametrize(
    "value",
    [
        {"properties": {"next": {"$ref": "#"}}},
        {"anyOf": [A, A], "$defs": {"a": {"type": "string"}}},
        {"items": {"anyOf": [{"$ref": "#"}, {"type": "string"}]}},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/x"},
        {"$ref": 5},
        {"$ref": "#/anyOf/99999999999999999999", "anyOf": []},
        {"allOf": [{**A}, {"$ref": "#/$defs/b"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {}}},
    ],
)
def test_a_schema_that_recurs_through_a_value_passes(value: Any) -> None:
    assert check(schema(value))


def test_a_chain_of_references_takes_no_time() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(999)}
    began = time.perf_counter()
    assert check(schema({"$ref": "#/$defs/d0", "$defs": chain}))
    assert time.perf_counter() - began < 1


def test_an_ordinary_body_is_checked_in_microseconds() -> None:
    body = json.dumps({"messages": [MESSAGE] * 4, "temperature": 0.5, "max_tokens": 9}).encode()
    checks = BodyCheck(
        BodyLimits(), FIELDS, context=100, prompt_chars=1000, sequences=64, reserved={}
    )
    began = time.perf_counter()
    for _ in range(1000):
        checks.check(PATH, body)
    assert time.perf_counter() - began < 0.5, "more than 500 us a body"
