"""Tools for a model that takes none, and pairs of texts to compare, in OpenAI bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.engine.bodies.check import BodyCheck
from serving.engine.bodies.limits import BodyLimits
from serving.errors import InvalidRequest
from tests.unit.engine.bodies.checking import (
    FIELDS,
    MESSAGE,
    PATH,
    TOOL,
    check,
    refusal,
)

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
