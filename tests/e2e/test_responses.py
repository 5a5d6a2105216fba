"""OpenAI's Responses by the clients that have a way to them, unmodified."""

from __future__ import annotations

from tests.e2e.conftest import Script
from tests.live import INSTRUCT

HELLO = " Hello! How can I help you today?"
CALLS = [["get_weather", {"city": "Paris"}]]
SAYS = "It is sunny in Paris."


def test_responses(sdk_script: Script) -> None:
    job = {"model": INSTRUCT, "prompt": "Hello!", "question": "What is the weather in Paris?"}
    found = sdk_script("responses", job)
    by_openai = found["openai"]
    assert by_openai["calls"] == CALLS
    assert by_openai["streamed"] == {"city": "Paris"}
    assert by_openai["text"].strip() == SAYS
    by_langchain = found["langchain"]
    assert by_langchain["text"] == by_langchain["streamed"] == HELLO
    assert by_langchain["calls"] == CALLS
    usage = by_langchain["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 2
    by_pydantic_ai = found["pydantic-ai"]
    assert by_pydantic_ai["text"] == by_pydantic_ai["streamed"] == HELLO
    assert by_pydantic_ai["cities"] == ["Paris"]
    assert by_pydantic_ai["helped"].strip() == SAYS
