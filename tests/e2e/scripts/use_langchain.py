"""Calls tools with langchain-openai: `bind_tools`, and `with_structured_output` by default."""

from __future__ import annotations

import json
import sys

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

job = json.load(sys.stdin)
model = ChatOpenAI(
    model=job["model"], api_key=SecretStr(job["key"]), base_url=f"{job['url']}/v1", temperature=0
)


@tool
def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return "sunny" if city == "Paris" else "unknown"


class Country(BaseModel):
    """A country and its capital."""

    name: str
    capital: str


with_tools = model.bind_tools([get_weather])
messages = [HumanMessage("What is the weather in Paris?")]
first = with_tools.invoke(messages)
told = [get_weather.invoke(call) for call in first.tool_calls]
second = with_tools.invoke([*messages, first, *told])
streamed = None
for chunk in with_tools.stream(messages):
    streamed = chunk if streamed is None else streamed + chunk

capital = "What is the capital of France?"
print(
    json.dumps(
        {
            "calls": [[call["name"], call["args"]] for call in first.tool_calls],
            "then": second.content,
            "streamed": [[call["name"], call["args"]] for call in streamed.tool_calls],
            "structured": model.with_structured_output(Country).invoke(capital).model_dump(),
            "by_tool": model.with_structured_output(Country, method="function_calling")
            .invoke(capital)
            .model_dump(),
        }
    )
)
