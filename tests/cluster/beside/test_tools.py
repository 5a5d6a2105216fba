"""Tool calls and reasoning on the chat endpoint beside bare vLLM."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.cluster.beside.sides import Sides
from tests.live import INSTRUCT, parse_events

BESIDE = (INSTRUCT,)
PATH = "/v1/chat/completions"
# What is another one for each answer, and vLLM's fingerprint of its own arguments.
OWN = ("id", "created", "system_fingerprint")


def tool(name: str, **properties: str) -> dict[str, Any]:
    """A tool with required parameters of these types."""
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


WEATHER = tool("get_weather", city="string")
ADD = tool("add", a="integer", b="integer")
IN_PARIS = user("What is the weather in Paris?")
TWO_CITIES = user("What is the weather in Paris and in Rome?")
CAPITAL = user("What is the capital of France?")
CALL = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}
TOLD = [
    *IN_PARIS,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call-1", "content": "sunny"},
]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
COUNTRY = {
    "type": "json_schema",
    "json_schema": {
        "name": "country",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "capital": {"type": "string"}},
            "required": ["name", "capital"],
        },
    },
}
THINKING = {"chat_template_kwargs": {"enable_thinking": True}}

BODIES: dict[str, dict[str, Any]] = {
    "auto": {"messages": IN_PARIS, "tools": [WEATHER]},
    "one of two": {"messages": user("What is 7 + 8?"), "tools": [WEATHER, ADD]},
    "no need": {"messages": user("Hello!"), "tools": [WEATHER]},
    "two calls": {"messages": TWO_CITIES, "tools": [WEATHER]},
    "one call": {"messages": TWO_CITIES, "tools": [WEATHER], "parallel_tool_calls": False},
    "required": {"messages": user("Hello!"), "tools": [WEATHER], "tool_choice": "required"},
    "named": {"messages": user("Hello!"), "tools": [ADD, WEATHER], "tool_choice": NAMED},
    "none": {"messages": IN_PARIS, "tools": [WEATHER], "tool_choice": "none"},
    "told": {"messages": TOLD, "tools": [WEATHER]},
    "cut short": {"messages": IN_PARIS, "tools": [WEATHER], "max_tokens": 12},
    "tokens": {"messages": IN_PARIS, "tools": [WEATHER], "logprobs": True, "top_logprobs": 1},
    "usage": {"messages": TOLD, "tools": [WEATHER], "return_token_ids": True},
    "tools or JSON": {"messages": CAPITAL, "tools": [WEATHER], "response_format": COUNTRY},
    "thinking": {"messages": CAPITAL, **THINKING},
    "thinking unseen": {"messages": CAPITAL, "include_reasoning": False, **THINKING},
    "thinking, then JSON": {"messages": CAPITAL, "response_format": COUNTRY, **THINKING},
    "not thinking": {"messages": CAPITAL},
}

REFUSED: dict[str, dict[str, Any]] = {
    "no such tool": {
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "gone"}},
    },
    "no tools": {"tool_choice": "required"},
    "no such choice": {"tools": [WEATHER], "tool_choice": "perhaps"},
    "no name": {"tools": [{"type": "function", "function": {}}]},
    "no schema": {
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"properties": "x"}}}
        ],
        "tool_choice": "required",
    },
}


def told(sides: Sides, body: dict[str, Any]) -> tuple[httpx.Response, httpx.Response]:
    """What both answer to a body."""
    sent = {"model": INSTRUCT, "temperature": 0, **body}
    ours, theirs = sides.ours, sides.theirs[INSTRUCT]
    return ours.post(PATH, json=sent), theirs.post(PATH, json=sent)


def shared(answer: Any) -> Any:
    """An answer, or an event of one, without what is its own."""
    if isinstance(answer, list):
        return [shared(item) for item in answer]
    if isinstance(answer, dict):
        return {key: shared(value) for key, value in answer.items() if key not in OWN}
    return answer


def joined(events: list[Any]) -> tuple[str, str, str, list[list[str]]]:
    """Content, reasoning, finish reason and tool calls of a stream's first choice."""
    content, reasoning, reason, calls = "", "", "", list[list[str]]()
    for event in events:
        for choice in event["choices"]:
            if choice["index"]:
                continue
            delta, reason = choice["delta"], choice["finish_reason"] or reason
            content += delta.get("content") or ""
            reasoning += delta.get("reasoning") or ""
            for call in delta.get("tool_calls") or []:
                if call.get("id"):
                    calls.append([call["function"]["name"], ""])
                calls[call["index"]][1] += call["function"].get("arguments") or ""
    return content, reasoning, reason, calls


@pytest.mark.parametrize("name", BODIES)
def test_whole(sides: Sides, name: str) -> None:
    ours, theirs = told(sides, BODIES[name])
    assert ours.status_code == 200, ours.text
    assert shared(ours.json()) == shared(theirs.json())


# What is told of a call that is cut short depends on how its steps are cut into events.
@pytest.mark.parametrize("name", [name for name in BODIES if name != "cut short"])
def test_streamed(sides: Sides, name: str) -> None:
    """Steps may be cut into events in another way, but they say the same, and what the whole
    answer says."""
    ours, theirs = told(sides, {**BODIES[name], "stream": True})
    *events, done = parse_events(ours.text)
    assert done.data == "[DONE]"
    *others, _ = parse_events(theirs.text)
    found = joined([event.json for event in events])
    assert found == joined([event.json for event in others])
    sent = {"model": INSTRUCT, "temperature": 0, **BODIES[name]}
    whole = sides.ours.post(PATH, json=sent).json()["choices"][0]
    message = whole["message"]
    calls = [
        [call["function"]["name"], call["function"]["arguments"]]
        for call in message.get("tool_calls") or []
    ]
    content, reasoning, reason, streamed_calls = found
    assert (reasoning, streamed_calls) == (message["reasoning"] or "", calls)
    assert (content, reason) == (message["content"] or "", whole["finish_reason"])


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_refused(sides: Sides, name: str, stream: bool) -> None:
    ours, refused = told(sides, {"messages": user("Hello!"), "stream": stream, **REFUSED[name]})
    assert ours.status_code == 400
    # Where vLLM has begun a stream, it says so in it.
    assert refused.status_code >= 400 or refused.text.startswith('data: {"error"')
    assert set(ours.json()) == {"error"}


def test_what_is_called_and_said(sides: Sides) -> None:
    """The answers that the comparisons above are about."""

    def message(name: str) -> Any:
        ours, _ = told(sides, BODIES[name])
        return ours.json()["choices"][0]["message"]

    def calls(name: str) -> list[tuple[str, str]]:
        found = message(name).get("tool_calls") or []
        return [(call["function"]["name"], call["function"]["arguments"]) for call in found]

    paris = ("get_weather", '{"city": "Paris"}')
    assert calls("auto") == calls("one call") == [paris]
    assert calls("two calls") == [paris, ("get_weather", '{"city": "Rome"}')]
    assert calls("one of two") == [("add", '{"a": 7, "b": 8}')]
    assert [name for name, _ in calls("required") + calls("named")] == ["get_weather"] * 2
    assert calls("none") == calls("no need") == []
    assert message("told")["content"].strip() == "It is sunny in Paris."
    thinking = message("thinking")
    assert thinking["reasoning"] == "I have read about this."
    assert thinking["content"].strip() == "The capital of France is Paris."
    assert message("not thinking")["reasoning"] is None
