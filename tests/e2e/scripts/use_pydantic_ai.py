"""pydantic-ai's agents: an output type, by default through a tool, and a tool of one's own."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

job = json.load(sys.stdin)
model = OpenAIChatModel(
    job["model"], provider=OpenAIProvider(base_url=f"{job['url']}/v1", api_key=job["key"])
)


class City(BaseModel):
    city: str
    country: str


weather: Any = Agent(model, model_settings={"temperature": 0})


@weather.tool_plain
def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return "sunny" if city == "Paris" else "unknown"


async def streamed(agent: Any, question: str) -> Any:
    async with agent.run_stream(question) as result:
        return (await result.get_output()).model_dump()


structured: Any = Agent(model, output_type=City, model_settings={"temperature": 0})
capital = "What is the capital of France?"
print(
    json.dumps(
        {
            "output": structured.run_sync(capital).output.model_dump(),
            "streamed": asyncio.run(streamed(structured, capital)),
            "then": weather.run_sync("What is the weather in Paris?").output,
        }
    )
)
