"""Runs in the environment of the clients that call tools: OpenAI's Responses by each client's way.

Prints a JSON object: what each of them got.
"""

import asyncio
import json
import sys
from typing import Any

from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

job = json.load(sys.stdin)
url, key, model, prompt = f"{job['url']}/v1", job["key"], job["model"], job["prompt"]


def get_weather(city: str) -> str:
    """The weather in a city."""
    return "sunny" if city == "Paris" else "unknown"


TOOL: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def by_openai() -> dict[str, Any]:
    client = OpenAI(api_key=key, base_url=url)
    asked: dict[str, Any] = {"model": model, "temperature": 0, "tools": [TOOL]}
    turns: list[Any] = [{"role": "user", "content": job["question"]}]
    called = client.responses.create(input=turns, **asked)
    calls = [item for item in called.output if item.type == "function_call"]
    with client.responses.stream(input=turns, **asked) as stream:
        deltas = [
            event.delta
            for event in stream
            if event.type == "response.function_call_arguments.delta"
        ]
    results = [
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": get_weather(**json.loads(call.arguments)),
        }
        for call in calls
    ]
    answer = client.responses.create(input=[*turns, *called.output, *results], **asked)
    return {
        "calls": [[call.name, json.loads(call.arguments)] for call in calls],
        "streamed": json.loads("".join(deltas) or "null"),
        "text": answer.output_text,
    }


def by_langchain() -> dict[str, Any]:
    chat = ChatOpenAI(model=model, base_url=url, api_key=key, temperature=0, use_responses_api=True)
    whole = chat.invoke(prompt)
    pieces = [chunk.text for chunk in chat.stream(prompt)]
    called = chat.bind_tools([get_weather]).invoke(job["question"])
    return {
        "text": whole.text,
        "streamed": "".join(pieces),
        "usage": whole.usage_metadata,
        "calls": [[call["name"], call["args"]] for call in called.tool_calls],
    }


async def by_pydantic_ai() -> dict[str, Any]:
    provider = OpenAIProvider(openai_client=AsyncOpenAI(api_key=key, base_url=url))
    responses = OpenAIResponsesModel(model, provider=provider)
    agent = Agent(responses, model_settings={"temperature": 0})
    whole = await agent.run(prompt)
    async with agent.run_stream(prompt) as stream:
        streamed = await stream.get_output()
    cities: list[str] = []

    def weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return get_weather(city)

    weather.__name__ = "get_weather"
    helped = Agent(responses, tools=[weather], model_settings={"temperature": 0})
    answer = await helped.run(job["question"])
    return {
        "text": whole.output,
        "streamed": streamed,
        "cities": cities,
        "helped": answer.output,
    }


print(
    json.dumps(
        {
            "openai": by_openai(),
            "langchain": by_langchain(),
            "pydantic-ai": asyncio.run(by_pydantic_ai()),
        }
    )
)
