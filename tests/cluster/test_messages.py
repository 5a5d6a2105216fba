"""Anthropic's Messages on a real engine: what chat answers, in other words, however it ends."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live import ALIAS, BASE, CROW, HAIKU, INSTRUCT, PIRATE, Server, parse_events, poll

MESSAGES, COUNT, CHAT = "/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"
MODELS = (BASE, ALIAS, PIRATE, HAIKU, CROW, INSTRUCT)
USER = {"role": "user", "content": "France"}
ASKED: dict[str, Any] = {"messages": [USER], "temperature": 0, "max_tokens": 60}
STOPS = {"stop": "end_turn", "length": "max_tokens"}
# More than is answered without a helper process.
LARGE = {"metadata": {"a": "x" * 8000, "b": "y" * 8000, "c": "z" * 8000}}


def error_of(response: httpx.Response, status: int) -> str:
    """The message of an error in Anthropic's shape."""
    assert response.status_code == status, response.text
    said = response.json()
    assert set(said) == {"type", "error", "request_id"}
    assert said["type"] == "error"
    assert set(said["error"]) == {"type", "message"}
    assert said["request_id"] == response.headers["request-id"]
    return str(said["error"]["message"])


@pytest.mark.parametrize("more", [{}, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("model", MODELS)
def test_messages_are_what_chat_answers(live: Server, model: str, more: dict[str, Any]) -> None:
    right = live.post(CHAT, model=model, **ASKED).json()
    (choice,) = right["choices"]
    tokens = right["usage"]["prompt_tokens"], right["usage"]["completion_tokens"]
    response = live.post(MESSAGES, model=model, **ASKED, **more)
    answer = response.json()
    assert answer["content"] == [{"type": "text", "text": choice["message"]["content"]}]
    assert answer["model"] == model
    assert answer["stop_reason"] == STOPS[choice["finish_reason"]]
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == tokens
    entry = live.record(response.headers["request-id"])
    assert (entry["outcome"], entry["endpoint"], entry["model"]) == ("ok", MESSAGES, model)
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == tokens

    streamed = live.post(MESSAGES, model=model, **ASKED, **more, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = parse_events(streamed.text)
    assert all(event.json["type"] == event.name for event in events)
    start, opened, *deltas, closed, delta, stop = (event.json for event in events)
    assert start["message"]["model"] == model
    assert start["message"]["usage"]["input_tokens"] == tokens[0]
    assert (opened["type"], closed["type"]) == ("content_block_start", "content_block_stop")
    assert {event["type"] for event in deltas} == {"content_block_delta"}
    text = "".join(event["delta"]["text"] for event in deltas)
    assert text == choice["message"]["content"]
    assert delta["delta"]["stop_reason"] == answer["stop_reason"]
    assert (delta["usage"]["input_tokens"], delta["usage"]["output_tokens"]) == tokens
    assert stop == {"type": "message_stop"}
    entry = live.record(streamed.headers["request-id"])
    assert (entry["outcome"], entry["prompt_tokens"], entry["completion_tokens"]) == ("ok", *tokens)


@pytest.mark.parametrize("model", MODELS)
def test_tokens_are_counted_as_they_are_used(live: Server, model: str) -> None:
    used = live.post(MESSAGES, model=model, **ASKED).json()["usage"]["input_tokens"]
    for more in ({}, LARGE, {"stream": True}):
        response = live.post(COUNT, model=model, messages=[USER], **more)
        assert response.headers["content-type"] == "application/json"
        assert response.json()["input_tokens"] == used
    entry = live.record(response.headers["request-id"])
    assert (entry["outcome"], entry["prompt_tokens"], entry["completion_tokens"]) == ("ok", 0, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [BASE, PIRATE])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens must be positive"),
        ({"max_tokens": 10**6}, "cannot be greater than max_model_len"),
        ({"temperature": -1}, "temperature"),
        ({"top_k": 2**70}, "more than 64 bits"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "'user', 'assistant' or 'system'"),
        ({"messages": [USER] * 1025}, "1025 messages"),
        ({"system": [{"type": "image"}]}, "text blocks only"),
        ({"tool_choice": {"type": "any"}}, "needs 'tools'"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "nonsense"}}}},
            "nonsense",
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "budget_tokens"),
        ({"stop_sequences": ["a"] * 99}, "at most 16"),
        ({"vllm_xargs": {"a": {"b": 1}}}, "vllm_xargs"),
    ],
)
def test_a_bad_parameter_is_400_before_the_first_byte(
    live: Server, model: str, stream: bool, fields: dict[str, Any], said: str
) -> None:
    response = live.post(MESSAGES, **{"model": model, **ASKED, **fields, "stream": stream})
    assert said in error_of(response, 400)
    assert response.headers["x-should-retry"] == "false"
    assert live.record(response.headers["request-id"])["outcome"] == "rejected"


def test_a_model_that_takes_no_images_says_so(live: Server) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    message = {"role": "user", "content": [{"type": "image", "source": source}]}
    response = live.post(MESSAGES, **{"model": BASE, **ASKED, "messages": [message]})
    assert error_of(response, 422) == f"model '{BASE}' takes no images"


def test_a_client_that_leaves_is_counted_for_what_was_made(live: Server) -> None:
    # Messages cannot say that an answer is not to end; a schema can.
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 400}
    schema = {"type": "object", "properties": {"a": numbers}, "required": ["a"]}
    form = {"format": {"type": "json_schema", "schema": schema}}
    body = {"model": BASE, **ASKED, "max_tokens": 900, "output_config": form, "stream": True}
    with live.client.stream("POST", live.url + MESSAGES, json=body) as response:
        lines = response.iter_lines()
        while "content_block_delta" not in next(lines):
            pass
    entry = live.record(response.headers["request-id"])
    assert entry["outcome"] == "cancelled"
    assert entry["prompt_tokens"] > 0
    assert 0 < entry["completion_tokens"] < 900
    poll(live.idle, 5, "the engine is idle")


TOOL = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"enum": [1, 2]}},
        "required": ["city"],
    },
}
WHOLE: dict[str, Any] = {
    "max_tokens": 3,
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.9,
    "stop_sequences": ["zebra"],
    "metadata": {"user_id": "u"},
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "disabled"},
    "tools": [TOOL],
    "tool_choice": {"type": "none"},
    "messages": [
        {"role": "user", "content": "The weather in Paris?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "A city.", "signature": "s"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "Sunny."}],
                },
                {"type": "text", "text": "And now?"},
            ],
        },
    ],
}
HOSTILE: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, 2**70, 1e308, "", "a", "\x00", "\U0001f600" * 9),
    *([], {}, [[]], [None], {"type": "text"}, {"type": ["text"]}, {"type": "image", "source": {}}),
    *("x" * 9000, ["x"] * 2000, {"type": "tool_addition", "tool": {}}, {"type": "document"}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value in a body."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inside, (*path, key))


def mutated(rng: random.Random) -> Any:
    """A body with one to three of its values lost, doubled or replaced."""
    body = copy.deepcopy(WHOLE)
    for _ in range(rng.randint(1, 3)):
        *way, last = rng.choice(list(places(body)))
        holder = body
        for key in way:
            holder = holder[key]
        action = rng.randrange(4)
        if action == 0:
            del holder[last]
        elif action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        else:
            holder[last] = copy.deepcopy(rng.choice(HOSTILE))
    return body


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
def test_no_body_ends_in_an_error_of_ours(live: Server, path: str) -> None:
    rng = random.Random(path)
    statuses: Counter[int] = Counter()
    for number in range(200):
        body = {"model": rng.choice(MODELS), "stream": number % 2 == 0, **mutated(rng)}
        response = live.post(path, **body)
        statuses[response.status_code] += 1
        assert response.status_code < 500, (response.text, json.dumps(body))
        if response.status_code >= 400:
            error_of(response, response.status_code)
        elif path == MESSAGES and body["stream"]:
            assert parse_events(response.text)[-1].name == "message_stop"
    assert statuses[400] > 40
    poll(live.idle, 5, "the engine is idle")
