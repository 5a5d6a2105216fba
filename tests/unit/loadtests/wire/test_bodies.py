from __future__ import annotations

import json
from typing import Any

import pytest

from loadtests.load.planned import Endpoint
from loadtests.wire.bodies import Said, body, messages, request, text
from loadtests.wire.service import Service
from tests.unit.loadtests.planned import planned

SERVICE = Service("http://example.test:8000")


def sent(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body(planned(**fields)))
    return found


def test_create_completion() -> None:
    assert sent() == {
        "model": "m",
        "stream": True,
        "prompt": "one two three",
        "model_parameters": {"temperature": 0, "max_tokens": 4},
    }


def test_openai_asks_for_usage_in_streams_only() -> None:
    assert sent(endpoint="completions")["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(endpoint="chat", stream=False)


def test_fields_of_vllm_are_sent_where_they_are_known() -> None:
    asked = sent(endpoint="completions", ignore_eos=True, priority=3)
    assert (asked["ignore_eos"], asked["priority"]) == (True, 3)
    assert not {"ignore_eos", "priority"} & set(sent(ignore_eos=True, priority=3))
    assert not {"ignore_eos", "priority"} & set(sent(endpoint="completions"))


@pytest.mark.parametrize(("endpoint", "name"), [("embeddings", "input"), ("rerank", "query")])
def test_what_reads_is_asked_for_no_tokens(endpoint: Endpoint, name: str) -> None:
    asked = sent(endpoint=endpoint, stream=False, extra={"documents": ["a"]})
    assert asked == {"model": "m", name: "one two three", "documents": ["a"]}


def test_extra_fields_replace_ours_and_objects_are_merged() -> None:
    asked = sent(extra={"model_parameters": {"temperature": 0.5}, "account_id": "a"})
    assert asked["model_parameters"] == {"temperature": 0.5, "max_tokens": 4}
    assert asked["account_id"] == "a"
    options = {"stream_options": {"continuous_usage_stats": True}}
    asked = sent(endpoint="chat", extra=options)
    assert asked["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_images() -> None:
    assert sent(images=("data:x",))["images"] == [{"image_url": "data:x"}]
    content = sent(endpoint="chat", images=("data:x",))["messages"][0]["content"]
    assert content == [
        {"type": "image_url", "image_url": {"url": "data:x"}},
        {"type": "text", "text": "one two three"},
    ]


def test_a_turn_begins_with_all_of_the_one_before_it() -> None:
    first = planned(system="be kind", prompt="hello")
    second = planned(system="be kind", prompt="bye")
    history = [Said("hello", "well met")]
    assert text(second, history).startswith(text(first, []) + "well met")
    assert messages(second, history) == [
        *messages(first, []),
        {"role": "assistant", "content": "well met"},
        {"role": "user", "content": "bye"},
    ]


def head(**fields: Any) -> dict[str, str]:
    lines = request(SERVICE, planned(**fields)).partition(b"\r\n\r\n")[0].decode().split("\r\n")
    pairs = dict(line.split(": ", 1) for line in lines[1:])
    return {"line": lines[0], **pairs}


def test_head() -> None:
    found = head(key="k")
    assert found["line"] == "POST /v4/completions HTTP/1.1"
    assert (found["host"], found["x-api-key"]) == ("example.test:8000", "k")
    assert int(found["content-length"]) == len(body(planned()))
    assert head(key="k", endpoint="chat")["authorization"] == "Bearer k"


def test_headers_of_the_plan_replace_ours() -> None:
    assert head(headers={"User-Agent": "x", "x-selected-account-id": "a"})["user-agent"] == "x"


def test_a_header_cannot_be_two() -> None:
    with pytest.raises(ValueError, match="line break"):
        request(SERVICE, planned(key="a\r\nx: y"))
