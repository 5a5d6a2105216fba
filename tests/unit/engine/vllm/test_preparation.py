"""Which bodies go straight to vLLM, and that whatever could be heavy does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.engine.vllm.preparation import SMALL_BYTES, is_light
from serving.engine.vllm.prepare_limits import PrepareLimits
from serving.engine.vllm.rehearsal import _without_prompt, _without_texts

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"response_format": None, "tools": [], "structured_outputs": None},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"metadata": {"response_format": SCHEMA}},
        {"text": {"verbosity": "low"}},
        {"text": {"format": {"type": "text"}}},
        {"output_config": {"effort": "low"}},
        {"output_config": {"format": None}},
        {"output_config": None},
    ],
)
def test_ordinary_requests_go_straight_to_vllm(more: dict[str, Any]) -> None:
    assert is_light("/v1/chat/completions", json.dumps(CHAT | more).encode())


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(CHAT | {"response_format": SCHEMA}),
        json.dumps(CHAT | {"response_format": SCHEMA}).replace("response_f", "\\u0072esponse_f"),
        json.dumps(CHAT | {"structured_outputs": {"regex": "a{1,5000}"}}),
        json.dumps(CHAT | {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        json.dumps(CHAT | {"bad_words": ["a"]}),
        json.dumps(CHAT | {"response_format": {"type": "json_object", "schema": {}}}),
        json.dumps(CHAT | {"response_format": 5}),
        json.dumps(CHAT | {"text": {"format": {"type": "json_schema", "schema": {}}}}),
        json.dumps(CHAT | {"output_config": {"format": {"type": "json_schema"}}}),
        json.dumps(CHAT | {"output_config": 5}),
        json.dumps(CHAT)[:-1],
        "[" * 10_000,
        "[]",
        '{"prompt": NaN}',
        json.dumps(CHAT) + " " * SMALL_BYTES,
    ],
)
def test_what_may_be_heavy_or_is_not_understood_is_prepared(body: str) -> None:
    assert not is_light("/v1/chat/completions", body.encode())


SCORE, RERANK, EMBED = "/score", "/rerank", "/v1/embeddings"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (SCORE, {"text_1": "a", "text_2": ["b"] * 16}),
        (SCORE, {"text_1": "a" * 7000, "text_2": "b"}),
        (RERANK, {"query": "a" * 900, "documents": ["b"] * 16, "padding": None}),
        (EMBED, {"input": ["a"] * 16}),
        (EMBED, {"input": "a" * 9000}),
        (EMBED, {"input": [5] * 1000}),
    ],
)
def test_a_few_texts_go_straight_to_vllm(path: str, fields: dict[str, Any]) -> None:
    assert is_light(path, json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (SCORE, {"text_1": "a", "text_2": ["b"] * 17}),
        (SCORE, {"text_1": ["a"] * 17, "text_2": ["b"] * 17}),
        (SCORE, {"queries": "a" * 1100, "items": ["b"] * 16}),
        # A second name for one side hides nothing.
        (SCORE, {"queries": "a" * 1100, "text_1": ["a", "b"], "items": ["b"] * 16}),
        (RERANK, {"query": "a" * 8000, "documents": ["b"] * 3}),
        (RERANK, {"query": "a", "documents": ["b"], "padding": "max_length"}),
        (EMBED, {"input": ["a"] * 17}),
        (EMBED, {"input": [[5]] * 17}),
        (EMBED, {"input": "a", "padding": "max_length"}),
        (EMBED, [1]),
    ],
)
def test_many_texts_and_long_pairs_are_prepared(path: str, fields: Any) -> None:
    body = json.dumps(fields).encode()
    assert len(body) < SMALL_BYTES
    assert not is_light(path, body)


def test_of_a_prepared_ranking_the_documents_are_left() -> None:
    fields = {"query": "x" * 9, "documents": ["d\u00e9"], "max_tokens_per_doc": 3, "top_n": 1}
    assert _without_texts(RERANK, fields, 1) == {"documents": ["d\u00e9"]}
    assert fields == {"query": ".", "top_n": 1}


def test_of_prepared_texts_their_number_is_left() -> None:
    fields = {"text_1": "x", "text_2": ["y", "z"], "items": None, "use_activation": False}
    assert _without_texts(SCORE, fields, 2) == {}
    assert (fields["text_1"], fields["text_2"]) == (".", [".", "."])
    assert (fields["items"], fields["use_activation"]) == (None, False)
    fields = {"input": ["x", "y"], "dimensions": 3}
    assert _without_texts(EMBED, fields, 2) == {}
    assert fields == {"input": [".", "."], "dimensions": 3}


@pytest.mark.parametrize("field", ["text", "response_format", "tools", "structured_outputs"])
def test_a_format_that_is_not_utf_8_is_not_light(field: str) -> None:
    """The body's check refuses it; here it must not raise."""
    for value in (b'"\xed\xa0\x80"', b'{"format": {"type": "\xff"}}'):
        body = b'{"model": "m", "input": "a", "%b": %b}' % (field.encode(), value)
        assert not is_light("/v1/responses", body)


def test_of_a_prepared_chat_only_what_the_answer_needs_is_left() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    fields = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "x" * 1000},
            {"role": "assistant", "content": "y" * 1000, "tool_calls": [call]},
            {"role": "tool", "content": "z" * 1000},
        ],
        "documents": ["d"],
        "max_tokens": 5,
    }
    _without_prompt("/v1/chat/completions", fields)
    assert fields == {
        "model": "m",
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "."},
        ],
        "max_tokens": 5,
    }


def test_of_a_prepared_response_too() -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    fields = {
        "model": "m",
        "instructions": "is repeated in the answer",
        "input": [
            {"role": "user", "content": "x" * 1000},
            call,
            {"type": "function_call_output", "call_id": "1", "output": "z" * 1000},
        ],
    }
    _without_prompt("/v1/responses", fields)
    mark = {"role": "user", "content": "."}
    assert fields == {
        "model": "m",
        "instructions": "is repeated in the answer",
        "input": [call, mark],
    }
    _without_prompt("/v1/responses", fields := {"input": "x" * 1000})
    assert fields == {"input": [mark]}


def test_the_documents_list_every_limit_on_preparing() -> None:
    text = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
    for name, field in PrepareLimits.model_fields.items():
        row = f"| `SERVING_PREPARE_{name.upper()}` | {field.default:g} |"
        assert row in text, f"docs/operations.md lacks {row}"


def test_limits_on_preparing_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_PREPARE_HELPERS", "4")
    assert PrepareLimits().helpers == 4
    monkeypatch.setenv("SERVING_PREPARE_HELPERS", "0")
    with pytest.raises(ValueError, match="helpers"):
        PrepareLimits()


def test_of_prepared_messages_only_what_the_answer_needs_is_left() -> None:
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": "y" * 1000}}
    fields = {
        "model": "m",
        "system": "s" * 1000,
        "messages": [
            {"role": "user", "content": "x" * 1000},
            {"role": "assistant", "content": "y" * 1000},
            {"role": "assistant", "content": [{"type": "text", "text": "y" * 1000}, use]},
            {"role": "user", "content": [{"type": "tool_result", "content": "z" * 1000}]},
        ],
        "tools": [{"name": "f", "input_schema": {}}],
        "max_tokens": 5,
    }
    _without_prompt("/v1/messages", fields)
    assert fields == {
        "model": "m",
        "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]},
            {"role": "user", "content": "."},
        ],
        "tools": [{"name": "f", "input_schema": {}}],
        "max_tokens": 5,
    }
