"""Tool calls and reasoning on the chat endpoint, side by side with bare vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from loadtests.stacks import Model, Stack, bare
from tests.cluster.conftest import local_model
from tests.live import INSTRUCT, Server, parse_events

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


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`vllm serve` with the same model, and the one argument that we give it beside those."""
    spec = local_model(INSTRUCT)
    spec["engine_args"] = {**spec["engine_args"], "exclude_tools_when_tool_choice_none": True}
    stack = bare(Model(INSTRUCT, None, spec, {}), tmp_path_factory.mktemp("bare"))
    stack.wait_until_ready()
    yield stack
    stack.stop()


def ask(url: str, body: dict[str, Any], key: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    sent = {"model": INSTRUCT, "temperature": 0, **body}
    return httpx.post(f"{url}{PATH}", json=sent, headers=headers, timeout=60)


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
def test_whole(live: Server, theirs: Stack, name: str) -> None:
    body = {"temperature": 0, **BODIES[name]}
    ours = live.post(PATH, model=INSTRUCT, **body)
    assert ours.status_code == 200, ours.text
    assert shared(ours.json()) == shared(ask(theirs.url, body, "").json())


# What is told of a call that is cut short depends on how its steps are cut into events.
@pytest.mark.parametrize("name", [name for name in BODIES if name != "cut short"])
def test_streamed(live: Server, theirs: Stack, name: str) -> None:
    """Steps may be cut into events in another way, but they say the same, and what the whole
    answer says."""
    body = {"temperature": 0, **BODIES[name]}
    *ours, done = parse_events(live.post(PATH, model=INSTRUCT, stream=True, **body).text)
    assert done.data == "[DONE]"
    *others, _ = parse_events(ask(theirs.url, {**body, "stream": True}, "").text)
    found = joined([event.json for event in ours])
    assert found == joined([event.json for event in others])
    whole = live.post(PATH, model=INSTRUCT, **body).json()["choices"][0]
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
def test_refused(live: Server, theirs: Stack, name: str, stream: bool) -> None:
    body = {"messages": user("Hello!"), "stream": stream, **REFUSED[name]}
    ours = live.post(PATH, model=INSTRUCT, **body)
    assert ours.status_code == 400
    # Where vLLM has begun a stream, it says so in it.
    refused = ask(theirs.url, body, "")
    assert refused.status_code >= 400 or refused.text.startswith('data: {"error"')
    assert set(ours.json()) == {"error"}


def test_what_is_called_and_said(live: Server) -> None:
    """The answers that the comparisons above are about."""

    def message(name: str) -> Any:
        body = {"temperature": 0, **BODIES[name]}
        return live.post(PATH, model=INSTRUCT, **body).json()["choices"][0]["message"]

    def calls(name: str) -> list[tuple[str, str]]:
        found = message(name).get("tool_calls") or []
        return [(call["function"]["name"], call["function"]["arguments"]) for call in found]

    paris = ("get_weather", '{"city": "Paris"}')
    assert calls("auto") == calls("one call") == [paris]
    assert calls("two calls") == [paris, ("get_weather", '{"city": "Rome"}')]
    assert calls("one of two") == [("add", '{"a": 7, "b": 8}')]
    assert [name for name, _ in calls("required") + calls("named")] == ["get_weather"] * 2
    assert calls("none") == calls("no need") == []
    # It was shown no tools: else it makes a call, which is told as text.
    assert message("none")["content"].startswith(" I cannot look out of the window")
    assert message("told")["content"].strip() == "It is sunny in Paris."
    thinking = message("thinking")
    assert thinking["reasoning"] == "I have read about this."
    assert thinking["content"].strip() == "The capital of France is Paris."
    assert message("not thinking")["reasoning"] is None


def test_no_endpoint_shows_tools_that_may_not_be_called(live: Server) -> None:
    function = WEATHER["function"]
    response = live.post(
        "/v1/responses",
        model=INSTRUCT,
        input="What is the weather in Paris?",
        tools=[{"type": "function", **function}],
        tool_choice="none",
        temperature=0,
    ).json()
    (item,) = response["output"]
    assert item["content"][0]["text"].startswith(" I cannot look out of the window")
    message = live.post(
        "/v1/messages",
        model=INSTRUCT,
        max_tokens=60,
        messages=IN_PARIS,
        tools=[{"name": function["name"], "input_schema": function["parameters"]}],
        tool_choice={"type": "none"},
        temperature=0,
    ).json()
    (block,) = message["content"]
    assert block["text"].startswith(" I cannot look out of the window")
