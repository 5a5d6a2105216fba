"""Limits on counts and sizes in OpenAI bodies, refused by name with their number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.engine.bodies.limits import BodyLimits
from serving.engine.bodies.responses import LOGPROBS
from serving.engine.bodies.responses import PATH as RESPONSES
from serving.errors import ContextLengthExceeded
from tests.unit.engine.bodies.checking import (
    MESSAGE,
    TAG,
    TOOL,
    check,
    refusal,
    schema,
)


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
        ({"n": 4, "logprobs": 20, "stream": True}, "logprobs", "together are taken in a stream"),
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
    ("body", "tokens"),
    [
        ({"n": 2, "logprobs": 4}, 100),
        ({"n": 20, "logprobs": 4, "max_tokens": 10}, 10),
        ({"n": 20, "top_logprobs": 4, "max_completion_tokens": 10}, 10),
        ({"n": 20, "logprob_token_ids": [1] * 4, "max_tokens": "10"}, 10),
        ({"top_logprobs": 19, "max_output_tokens": 5000, "n": 1}, 100),
    ],
)
def test_an_answer_has_a_limit_on_its_log_probabilities(body: Any, tokens: int) -> None:
    check(body, answer_logprobs=2000)
    error = refusal(body, answer_logprobs=999)
    assert "logprob" in (error.param or "")
    assert f"of up to {tokens} tokens; at most 999 of an answer" in error.message


def test_a_streamed_response_repeats_its_log_probabilities() -> None:
    limits = {"answer_logprobs": 9000, "streamed_response_logprobs": 999}
    body = {"input": "a", "top_logprobs": 9, "include": [LOGPROBS]}
    check(body, path=RESPONSES, **limits)
    check({**body, "stream": True, "max_output_tokens": 99}, path=RESPONSES, **limits)
    for other in (None, 5, [], LOGPROBS):
        check({**body, "stream": True, "include": other}, path=RESPONSES, **limits)
    error = refusal({**body, "stream": True}, path=RESPONSES, **limits)
    assert error.param == "top_logprobs"
    assert "at most 999 of an answer" in error.message
    assert "or for no stream" in error.message


@pytest.mark.parametrize(
    "body",
    [
        {"n": 64, "logprobs": 4},
        {"n": 3, "logprobs": 20, "stream": True},
        {"n": 12, "logprobs": 20, "stream": False},
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
