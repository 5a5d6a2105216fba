"""Anthropic's Messages beside bare vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.beside.alike import (
    KIND,
    NO_IMAGES,
    NO_TOOLS,
    ROUTED,
    UNKNOWN,
    Otherwise,
    assert_alike,
    assert_refused,
)
from tests.cluster.beside.sides import Served, Sides, asked
from tests.live import ALIAS, BASE, INSTRUCT, PIRATE

BESIDE = (BASE, INSTRUCT)
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
PLAIN = [Served(BASE, BASE, BASE), Served(ALIAS, BASE, BASE), Served(PIRATE, PIRATE, BASE)]
CALLS = Served(INSTRUCT, INSTRUCT, INSTRUCT)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


ASKED: dict[str, Any] = {"messages": [user("France")], "temperature": 0, "max_tokens": 24}
TURNS = [user("France"), {"role": "assistant", "content": "Paris."}, user([text("Italy")])]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "The weather of a city.", "input_schema": CITY}
ADD = {
    "name": "add",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
IN_PARIS = [user("What is the weather in Paris?")]
USE = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}}
TOLD = [
    *IN_PARIS,
    {"role": "assistant", "content": [USE]},
    user([{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}]),
]
TOLD_IN_BLOCKS = [
    *TOLD[:2],
    user([{"type": "tool_result", "tool_use_id": "t1", "content": [text("sunny")]}]),
]
THOUGHT = [
    *IN_PARIS,
    {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "A city.", "signature": "s"}, USE],
    },
    TOLD[2],
]
PICTURE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
SCHEMA = {"type": "json_schema", "schema": CITY}

# Of every model.
BODIES: dict[str, dict[str, Any]] = {
    "one": {},
    "turns": {"messages": TURNS},
    "blocks": {"messages": [user([text("The capital"), text("of France")])]},
    "a system text": {"system": "Be brief."},
    "system blocks": {
        "system": [{**text("Be brief."), "cache_control": {"type": "ephemeral"}}, text("Now.")]
    },
    "a system message": {"messages": [{"role": "system", "content": "Be brief."}, *TURNS]},
    "cut short": {"max_tokens": 2},
    "a stop sequence": {"stop_sequences": ["ari", "zebra"]},
    "one token": {"max_tokens": 1},
    "sampled": {"temperature": 1, "top_k": 1, "top_p": 0.9},
    "metadata": {"metadata": {"user_id": "u"}, "service_tier": "auto"},
    "no thinking": {"thinking": {"type": "disabled"}},
    "a schema": {"output_config": {"format": SCHEMA}, "max_tokens": 60},
}
# Of the model that knows tools.
TOOLS: dict[str, dict[str, Any]] = {
    "auto": {"messages": IN_PARIS, "tools": [WEATHER]},
    "one of two": {"messages": [user("What is 7 + 8?")], "tools": [WEATHER, ADD]},
    "two calls": {
        "messages": [user("What is the weather in Paris and in Rome?")],
        "tools": [WEATHER],
    },
    "no need": {"messages": [user("Hello!")], "tools": [WEATHER]},
    "any": {"messages": [user("Hello!")], "tools": [WEATHER], "tool_choice": {"type": "any"}},
    "named": {
        "messages": [user("Hello!")],
        "tools": [ADD, WEATHER],
        "tool_choice": {"type": "tool", "name": "get_weather"},
    },
    "none": {"messages": IN_PARIS, "tools": [WEATHER], "tool_choice": {"type": "none"}},
    "not in parallel": {
        "messages": [user("What is the weather in Paris and in Rome?")],
        "tools": [WEATHER],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    },
    "told": {"messages": TOLD, "tools": [WEATHER]},
    "told in blocks": {"messages": TOLD_IN_BLOCKS, "tools": [WEATHER]},
    "thought": {"messages": THOUGHT, "tools": [WEATHER]},
    "system": {"messages": [user("Hello!")], "system": "Be brief."},
}
REFUSED: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "messages are none": {"messages": None},
    "messages are a text": {"messages": "France"},
    "an unknown role": {"messages": [{"role": "tool", "content": "a"}]},
    "no content": {"messages": [{"role": "user"}]},
    "content is a number": {"messages": [user(5)]},
    "a block without a type": {"messages": [user([{"text": "a"}])]},
    "an unknown block": {"messages": [user([{"type": "nothing"}])]},
    "an image": {
        "messages": [
            user(
                [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    }
                ]
            )
        ]
    },
    "no limit": {"max_tokens": None},
    "a limit of none": {"max_tokens": 0},
    "a limit below none": {"max_tokens": -1},
    "a limit that is a text": {"max_tokens": "many"},
    "a limit above the context": {"max_tokens": 10**6},
    "a prompt above the context": {"messages": [user("people " * 1500)]},
    "a temperature below none": {"temperature": -1},
    "a temperature that is a text": {"temperature": "hot"},
    "top_p above one": {"top_p": 2},
    "top_k below": {"top_k": -5},
    "stop sequences are a number": {"stop_sequences": 5},
    "stream is a text": {"stream": "perhaps"},
    "a tool that must be used": {"tool_choice": {"type": "any"}},
    "an unknown choice": {"tool_choice": {"type": "perhaps"}},
    "a tool without a name": {"tools": [{"input_schema": CITY}]},
    "tools are an object": {"tools": {}},
    "a wrong schema": {
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "nonsense"}}}
    },
    "a budget above the limit": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "a small budget": {"thinking": {"type": "enabled", "budget_tokens": 5}},
    "an unknown model": {"model": "nothing"},
}
# How a refusal differs from vLLM's, and why.
OTHERWISE = {
    **dict.fromkeys(("messages are a text", "stop sequences are a number"), KIND),
    "tools are an object": KIND,
    "an image": NO_IMAGES,
    "stream is a text": ROUTED,
    "a tool that must be used": Otherwise(400, 400, "the field is named"),
    "a tool without a name": NO_TOOLS,
    "an unknown model": UNKNOWN,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("served", "name"), asked(PLAIN, BODIES))
def test_answers(sides: Sides, served: Served, name: str, stream: bool) -> None:
    assert_alike(sides, MESSAGES, served, {**ASKED, **BODIES[name], "stream": stream})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", TOOLS)
def test_tools_and_thoughts(sides: Sides, name: str, stream: bool) -> None:
    body = {**ASKED, "max_tokens": 80, **TOOLS[name], "stream": stream}
    assert_alike(sides, MESSAGES, CALLS, body)


@pytest.mark.parametrize(("served", "name"), asked(PLAIN, BODIES))
def test_counts(sides: Sides, served: Served, name: str) -> None:
    assert_alike(sides, COUNT, served, {**ASKED, **BODIES[name]})


@pytest.mark.parametrize("name", TOOLS)
def test_counts_of_tools(sides: Sides, name: str) -> None:
    assert_alike(sides, COUNT, CALLS, {**ASKED, **TOOLS[name]})


@pytest.mark.parametrize(("served", "stream"), [(PLAIN[0], False), (PLAIN[2], True)])
@pytest.mark.parametrize("name", REFUSED)
def test_refusals(sides: Sides, served: Served, name: str, stream: bool) -> None:
    body = {**ASKED, "stream": stream, **REFUSED[name]}
    assert_refused(*sides.ask(MESSAGES, served, body), OTHERWISE.get(name))


@pytest.mark.parametrize("name", [name for name, body in REFUSED.items() if "messages" in body])
def test_refusals_of_counts(sides: Sides, name: str) -> None:
    body = {**ASKED, **REFUSED[name]}
    assert_refused(*sides.ask(COUNT, PLAIN[0], body), OTHERWISE.get(name))
