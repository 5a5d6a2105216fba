"""Tools in Anthropic's Messages: one engine with a tool parser, by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.catalogue.spec import EngineSpec
from serving.errors import InvalidRequest
from serving.observability.logs import open_log
from serving.router.answer import AttemptFailed
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import (
    EngineLink,
    EngineServer,
    engine_link,
    engine_server,
    http_call,
)
from tests.conftest import Eventually
from tests.live import INSTRUCT, parse_events

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
# Roles and names alone: the model needs to make no sense of them, and its own template takes none.
TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }}: {% endfor %}"
    "{% for message in messages %}{{ message.role }} {{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}{{ call.function.name }}{% endfor %}\n"
    "{% endfor %}"
)
CITY = {"enum": ["Paris", "Rome"]}
WEATHER = {
    "name": "get_weather",
    "strict": True,
    "input_schema": {
        "type": "object",
        "properties": {"city": CITY},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME = {**WEATHER, "name": "get_time"}
QUESTION = {"role": "user", "content": "The weather?"}
TOOLS: dict[str, Any] = {"tools": [WEATHER, TIME], "messages": [QUESTION], "temperature": 0}
USE = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}}
SAID = [
    QUESTION,
    {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, USE]},
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [{"type": "text", "text": "Sunny"}],
            }
        ],
    },
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    model = local_model(INSTRUCT)
    # Its calls need not fit a tool's schema, and it does not think.
    arguments = {k: v for k, v in model["engine_args"].items() if k != "tool_strict_level"}
    changes = {"engine_args": arguments, "reasoning_parser": None, "chat_template": TEMPLATE}
    spec = EngineSpec.model_validate({**model, **changes})
    with engine_server(spec, tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture
async def link(
    engine: EngineServer, tmp_path: Path, eventually: Eventually
) -> AsyncIterator[EngineLink]:
    async with engine_link(engine, open_log("tools-test", str(tmp_path))) as link:
        await eventually(lambda: link.up)
        yield link


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_time"}])
async def test_a_tool_that_must_be_used_is_used(link: EngineLink, choice: dict[str, Any]) -> None:
    fields = {**TOOLS, "tool_choice": choice, "max_tokens": 300}
    ended, answer = await link.post(MESSAGES, INSTRUCT, **fields)
    assert answer["stop_reason"] == "tool_use"
    (use,) = [block for block in answer["content"] if block["type"] == "tool_use"]
    assert use["name"] in ({choice["name"]} if "name" in choice else {"get_weather", "get_time"})
    assert use["input"]["city"] in CITY["enum"]
    assert use["id"]
    assert ended.end is not None
    assert ended.end.completion_tokens == answer["usage"]["output_tokens"] > 0

    _, said = await link.call(*http_call(MESSAGES, INSTRUCT, stream=True, **fields))
    events = [event.json for event in parse_events(said.decode())]
    (begun,) = [
        event["content_block"] for event in events if event["type"] == "content_block_start"
    ]
    assert (begun["type"], begun["name"]) == ("tool_use", use["name"])
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert {delta["type"] for delta in deltas} == {"input_json_delta"}
    assert json.loads("".join(delta["partial_json"] for delta in deltas)) == use["input"]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-1] == {"type": "message_stop"}


@pytest.mark.parametrize("max_tokens", range(1, 40, 3))
async def test_a_call_that_is_cut_short_is_an_answer(link: EngineLink, max_tokens: int) -> None:
    choice = {"type": "tool", "name": "get_weather"}
    _, answer = await link.post(
        MESSAGES, INSTRUCT, **TOOLS, tool_choice=choice, max_tokens=max_tokens
    )
    assert answer["stop_reason"] in ("max_tokens", "tool_use")
    for block in answer["content"]:
        if block["type"] == "tool_use":
            assert isinstance(block["input"], dict)


@pytest.mark.parametrize("padding", ["", "x" * 20_000], ids=["light", "heavy"])
async def test_results_of_tools_are_part_of_the_prompt(link: EngineLink, padding: str) -> None:
    async def count(**fields: Any) -> int:
        _, answer = await link.post(COUNT, INSTRUCT, **fields)
        return int(answer["input_tokens"])

    metadata = {"metadata": {"a": padding[:8000], "b": padding[:8000], "c": padding[:8000]}}
    asked: dict[str, Any] = {"messages": SAID, "tools": [WEATHER]}
    counted = await count(**asked)
    assert counted > await count(**{**asked, "messages": SAID[:1]})
    assert counted > await count(messages=SAID)
    _, answer = await link.post(MESSAGES, INSTRUCT, **asked, max_tokens=5, **metadata)
    assert answer["usage"]["input_tokens"] == counted


async def test_a_tool_that_is_not_there(link: EngineLink) -> None:
    choice = {"type": "tool", "name": "nothing"}
    with pytest.raises(AttemptFailed) as caught:
        await link.post(MESSAGES, INSTRUCT, **TOOLS, tool_choice=choice, max_tokens=9)
    assert isinstance(caught.value.error, InvalidRequest)
    assert "not among 'tools'" in caught.value.error.message
