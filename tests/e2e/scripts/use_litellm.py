"""Calls a tool with litellm, whole and streamed."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# Prices come with the package; without this the import asks for newer ones on the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

job = json.load(sys.stdin)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}


def ask(*messages: Any, stream: bool = False) -> Any:
    return litellm.completion(
        model=f"openai/{job['model']}",
        api_base=f"{job['url']}/v1",
        api_key=job["key"],
        messages=list(messages),
        tools=[TOOL],
        temperature=0,
        stream=stream,
    )


def calls(message: Any) -> Any:
    return [[c.function.name, json.loads(c.function.arguments)] for c in message.tool_calls]


first = ask(QUESTION).choices[0].message
result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}
then = ask(QUESTION, first, result).choices[0].message.content
rebuilt = litellm.stream_chunk_builder(list(ask(QUESTION, stream=True)))
streamed = calls(rebuilt.choices[0].message)
print(json.dumps({"calls": calls(first), "then": then, "streamed": streamed}))
