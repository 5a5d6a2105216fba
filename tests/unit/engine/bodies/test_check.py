"""What the check of OpenAI bodies refuses, and what it lets pass."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from serving.engine.bodies.check import BodyCheck
from serving.engine.bodies.fields import LIST, OBJECT, SCALAR, check_kind, fields_of, kinds_of
from serving.engine.bodies.limits import BodyLimits
from serving.errors import ContextLengthExceeded, InvalidRequest

PATH = "/v1/chat/completions"
FIELDS = {PATH: {"structured_outputs": frozenset((OBJECT,)), "stop": frozenset((SCALAR, LIST))}}


def check(
    body: Any,
    prompt_chars: int | None = 1000,
    sequences: int | None = 64,
    path: str = PATH,
    **limits: int,
) -> bool:
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    checks = BodyCheck(
        BodyLimits(**limits),
        FIELDS,
        context=100,
        prompt_chars=prompt_chars,
        sequences=sequences,
        reserved={"vllm_xargs": frozenset(("taken",))},
    )
    return checks.check(path, given).constrained


def refusal(body: Any, **more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check(body, **more)
    assert caught.value.status == 400
    return caught.value


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


# counts and sizes

MESSAGE = {"role": "user", "content": "a"}
TOOL = {"type": "function", "function": {"name": "a"}}
TAG = {"begin": "a", "end": "b", "schema": {}}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"messages": [MESSAGE] * 1025}, "messages", "1025 messages; at most 1024"),
        ({"messages": [[MESSAGE] * 600] * 2}, "messages", "1200 messages"),
        ({"messages": [{"content": [{}] * 1025}]}, "messages", "1025 content parts"),
        ({"messages": [{"tool_calls": [{}] * 600}] * 2}, "messages", "1200 content parts"),
        ({"prompt": ["a"] * 513}, "prompt", "513 prompts; at most 512"),
        ({"prompt": [[1]] * 513}, "prompt", "513 prompts"),
        ({"input": ["a"] * 513}, "input", "513 prompts"),
        ({"prompt": [1] * 262_145}, "prompt", "262145 token IDs; at most 262144"),
        ({"tokens": [1] * 262_145}, "tokens", "262145 token IDs"),
        ({"prompt": [[1] * 150_000] * 2}, "prompt", "more than"),
        ({"n": 65}, "n", "is 65; this model takes at most 64"),
        ({"n": "65"}, "n", "is 65"),
        ({"n": 65.0}, "n", "is 65"),
        ({"n": 33, "prompt": ["a", "b"]}, "n", "is 33 for 2 prompts; this model takes at most 64"),
        ({"n": 33, "messages": [[MESSAGE]] * 2}, "n", "is 33 for 2 prompts"),
        ({"n": 129}, "n", "is 129; at most 128 choices of a prompt are taken"),
        ({"best_of": 129, "n": 2}, "best_of", "is 129; at most 128"),
        ({"n": 5, "prompt": ["a"] * 103}, "n", "is 5 for 103 prompts; at most 512 choices"),
        ({"best_of": 8, "prompt": [[5]] * 65}, "best_of", "is 8 for 65 prompts; at most 512"),
        ({"n": 13, "logprobs": 20}, "logprobs", "20 log probabilities of each token, for 13"),
        ({"n": 13, "logprobs": True, "top_logprobs": 20}, "top_logprobs", "for 13 choices"),
        ({"n": 5, "logprob_token_ids": [1] * 128}, "logprob_token_ids", "128 log probabilities"),
        ({"prompt": [[5]] * 13, "prompt_logprobs": 20}, "prompt_logprobs", "for 13 choices"),
        ({"prompt": ["a"] * 13, "logprobs": 20}, "logprobs", "for 13 choices; at most 256"),
        ({"tools": [TOOL] * 129}, "tools", "129 items; at most 128"),
        ({"stop": ["a"] * 17}, "stop", "17 items; at most 16"),
        ({"stop": "a" * 1025}, "stop", "1025 characters; at most 1024"),
        ({"bad_words": ["a" * 1025]}, "bad_words", "1025 characters"),
        ({"allowed_token_ids": [1] * 4097}, "allowed_token_ids", "4097 items; at most 4096"),
        ({"logit_bias": dict.fromkeys(map(str, range(1025)), 1)}, "logit_bias", "1025 entries"),
        ({"vllm_xargs": dict.fromkeys(map(str, range(1025)), 1)}, "vllm_xargs", "1025 entries"),
        ({"vllm_xargs": {"taken": 1}}, "vllm_xargs", "'taken'"),
        ({"session_id": "a" * 8193}, "session_id", "8193 characters; at most 8192"),
        ({"x" * 100: "a" * 8193}, "x" * 64 + "...", "8193 characters"),
        ({"metadata": {"a": "b" * 300_000}}, "metadata", "bytes of JSON; at most 262144"),
        ({"metadata": [[0] * 100] * 201}, "metadata", "more than 20000 values"),
        (schema({"enum": [str(n) for n in range(1001)]}), "response_format", "1000 enum values"),
        (
            schema({"properties": {str(n): {} for n in range(1001)}}),
            "response_format",
            "1000 properties",
        ),
        (schema({"enum": ["a" * 200] * 200}), "response_format", "32768 characters in names"),
        (schema({"anyOf": [{"const": "a" * 20_000}] * 2}), "response_format", "32768 characters"),
        (schema({"properties": {"a" * 40_000: {}}}), "response_format", "32768 characters"),
        (schema({"maxLength": 100_001}), "response_format", "a maxLength of 100001"),
        (schema({"items": {"pattern": "[a-z]{1,5000}"}}), "response_format", "512 characters in"),
        (schema({"patternProperties": {"a{2000}": {}}}), "response_format", "512 characters in"),
        ({"structured_outputs": {"regex": "(a{100}){50}"}}, "structured_outputs", "512 char"),
        ({"structured_outputs": {"regex": "a" * 2049}}, "structured_outputs", "2049 characters"),
        ({"structured_outputs": {"choice": ["a"] * 1001}}, "structured_outputs", "1000 enum"),
        ({"structured_outputs": {"grammar": "a" * 16_385}}, "structured_outputs", "16385 char"),
        ({"structured_outputs": {"grammar": "r ::= a{1,5000}"}}, "structured_outputs", "512 rep"),
        (
            {"structured_outputs": {"json": json.dumps({"enum": ["a"] * 1001})}},
            "structured_outputs",
            "1000 enum",
        ),
        (
            {"structured_outputs": {"structural_tag": json.dumps({"structures": [TAG] * 33})}},
            "structured_outputs",
            "33 structures; at most 32",
        ),
        ({"response_format": {"structures": [TAG] * 33}}, "response_format", "33 structures"),
        ({"response_format": {"triggers": ["a"] * 33}}, "response_format", "33 triggers"),
        ({"response_format": {"format": {"tags": [{}] * 33}}}, "response_format", "33 tags"),
        (
            {"tools": [{"function": {"parameters": {"pattern": "a{600}"}}}] * 2},
            "tools",
            "512 characters in",
        ),
    ],
)
def test_a_size_is_refused_by_name_with_its_number(body: Any, param: str, said: str) -> None:
    error = refusal(body)
    assert (error.param, said in error.message) == (param, True), error.message


@pytest.mark.parametrize(
    "body",
    [
        {"n": 64, "logprobs": 4},
        {"n": 128, "best_of": None, "logprobs": None},
        {"prompt": ["a"] * 256, "echo": True, "logprobs": 1},
        {"messages": [MESSAGE], "n": 12, "logprobs": True, "top_logprobs": 20},
        {"n": "many", "best_of": {}, "logprobs": "all"},
    ],
)
def test_choices_within_the_limits_pass(body: Any) -> None:
    check(body, sequences=None)


def test_every_limit_is_a_setting() -> None:
    assert not check({"messages": [MESSAGE] * 3}, messages=3)
    assert "at most 2" in refusal({"messages": [MESSAGE] * 3}, messages=2).message


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a" * 1001, "truncate_prompt_tokens": 10},
        {"prompt": ["a", "b" * 1001]},
        {"input": "a" * 1001},
        {"messages": [{"role": "user", "content": "a" * 600}] * 2},
        {"messages": [{"content": [{"type": "text", "text": "a" * 1001}]}]},
        {"messages": [{"content": "a" * 1001, "image_url": "b"}]},
        {"suffix": "a" * 1001},
        {"documents": [{"text": "a" * 1001}]},
    ],
)
def test_a_prompt_that_fits_no_context_is_refused_before_it_is_tokenized(body: Any) -> None:
    error = refusal(body)
    assert isinstance(error, ContextLengthExceeded)
    assert "at most 1000" in error.message


def test_an_image_is_no_text() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:" + "a" * 100_000}}
    assert not check({"messages": [{"role": "user", "content": [part]}]}, text_bytes=1000)


def test_a_text_that_is_long_is_refused_without_reading_it() -> None:
    error = refusal({"prompt": "a" * 2000}, text_bytes=1000)
    assert "2002 bytes of JSON; at most 1000" in error.message


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


def test_the_documents_list_every_limit() -> None:
    text = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
    for name, field in BodyLimits.model_fields.items():
        row = f"| `SERVING_LIMIT_{name.upper()}` | {field.default} |"
        assert row in text, f"docs/operations.md lacks {row}"


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_LIMIT_MESSAGES", "2")
    assert "at most 2" in refusal({"messages": [MESSAGE] * 3}).message
    monkeypatch.setenv("SERVING_LIMIT_MESSAGES", "0")
    with pytest.raises(ValueError, match="messages"):
        BodyLimits()


# tools


def toolless(body: Any, path: str = PATH) -> bool:
    given = json.dumps(body).encode()
    checks = BodyCheck(
        BodyLimits(),
        FIELDS,
        context=100,
        prompt_chars=None,
        sequences=None,
        reserved={},
        tools=False,
    )
    return checks.check(path, given).constrained


@pytest.mark.parametrize(
    "choice",
    [{}, {"tool_choice": "auto"}, {"tool_choice": "required"}, {"tool_choice": {"type": "any"}}],
)
def test_tools_for_a_model_that_takes_none(choice: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidRequest, match=r"takes no tools; its spec has no `tool_parser`"
    ) as at:
        toolless({"tools": [TOOL], **choice})
    assert at.value.param == "tools"
    assert at.value.status == 400
    assert check({"tools": [TOOL], **choice})


@pytest.mark.parametrize(
    "body",
    [
        {"tools": []},
        {"tools": None},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
    ],
)
def test_no_tool_may_be_called(body: dict[str, Any]) -> None:
    toolless(body)


def test_tools_are_part_of_a_chat_that_is_tokenized() -> None:
    """Nothing is called there, and a template may show tools whoever reads the answer."""
    toolless({"messages": [MESSAGE], "tools": [TOOL]}, "/tokenize")


# pairs


@pytest.mark.parametrize("path", ["/score", "/rerank"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"documents": ["a"] * 513}, "has 513 texts; at most 512 are taken"),
        ({"documents": [["a"]]}, "must be a text or a list of texts"),
        ({"documents": {"content": []}}, "must be a text or a list of texts"),
        ({"documents": [None]}, "must be a text or a list of texts"),
        ({"documents": [[5, 6]]}, "must be a text or a list of texts"),
        ({"items": ["a", "b" * 1001]}, "has 1001 characters; at most 1000"),
        ({"query": "a" * 1001, "documents": ["b"]}, "has 1001 characters; at most 1000"),
        ({"query": "a", "documents": ["b"] * 65}, "65 pairs; this model takes at most 64"),
    ],
)
def test_texts_to_compare(path: str, body: dict[str, Any], said: str) -> None:
    assert said in refusal(body, path=path).message


@pytest.mark.parametrize(
    "body",
    [
        {"query": "a" * 100, "documents": ["b"] * 11},
        {"queries": ["a" * 100], "items": ["b"] * 11},
        {"text_1": "a" * 100, "data_2": ["b"] * 11, "text_2": "b"},
        {"text_1": "a" * 100, "data_1": ["a", "a"], "data_2": ["b"] * 11},
        {"text_1": ["a" * 80] * 7, "text_2": ["b" * 80] * 7},
    ],
)
def test_a_query_counts_with_each_of_its_documents(body: dict[str, Any]) -> None:
    error = refusal(body, path="/score", pair_chars=1000)
    assert "pairs have" in error.message
    assert "at most 1000 are taken" in error.message
    assert not check(body, path="/score", pair_chars=1200)


def test_what_a_chat_calls_by_such_names_is_no_pair() -> None:
    assert not check({"messages": [], "documents": [{"title": "a"}], "items": [{}] * 600})
