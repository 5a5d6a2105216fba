"""Clients that call tools by default, unmodified: each in the way that it takes by itself."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Script
from tests.live import INSTRUCT

JOB = {"model": INSTRUCT}
CALLS = [["get_weather", {"city": "Paris"}]]
SAYS = "It is sunny in Paris."
FRANCE = {"name": "France", "capital": "Paris"}
JASON = {"name": "Jason", "age": 25}


def test_openai(sdk_script: Script) -> None:
    found = sdk_script("openai", JOB)
    # A tool is called, and its result is told.
    whole = found["whole"]
    assert [[whole["name"], whole["arguments"]]] == CALLS
    assert whole["finish_reason"] == "tool_calls"
    assert whole["then"].strip() == SAYS
    assert whole["ended"] == "stop"
    # Streamed, the arguments come as they are made.
    streamed = found["streamed"]
    assert streamed["names"] == ["get_weather"]
    assert streamed["ids"] == 1
    assert json.loads("".join(streamed["pieces"])) == {"city": "Paris"}
    assert len(streamed["pieces"]) > 2
    assert streamed["finish_reason"] == "tool_calls"
    # Forced, for a question that needs none.
    forced = found["forced"]
    assert forced["required"] == forced["named"] == ["get_weather"]
    assert forced["none"] == []
    assert forced["auto"].startswith(" Hello!")
    # pydantic models, as the answer's format and as a tool.
    assert found["parsed"] == {"country": FRANCE, "user": JASON, "streamed": FRANCE}


def test_langchain(sdk_script: Script) -> None:
    found = sdk_script("langchain", JOB)
    assert found["calls"] == found["streamed"] == CALLS
    assert found["then"].strip() == SAYS
    assert found["structured"] == found["by_tool"] == FRANCE


def test_pydantic_ai(sdk_script: Script) -> None:
    found = sdk_script("pydantic-ai", JOB)
    assert found["output"] == found["streamed"] == {"city": "Paris", "country": "France"}
    assert found["then"].strip() == SAYS


def test_instructor(sdk_script: Script) -> None:
    found = sdk_script("instructor", JOB)
    assert found["mode"] == "Mode.TOOLS"
    assert found["user"] == JASON
    # Its tool is called PartialUser then, which the model has not learned: any person will do.
    assert found["partial"].keys() == JASON.keys()
    assert isinstance(found["partial"]["age"], int)


def test_litellm(sdk_script: Script) -> None:
    found = sdk_script("litellm", JOB)
    assert found["calls"] == found["streamed"] == CALLS
    assert found["then"].strip() == SAYS


@pytest.mark.long
def test_llama_index(sdk_script: Script) -> None:
    found = sdk_script("llama-index", JOB)
    assert found["calls"] == CALLS
    assert found["then"].strip() == SAYS
    assert found["structured"] == FRANCE
