"""LlamaIndex's function calling: one call, an agent that goes on, and a structured answer."""

from __future__ import annotations

import asyncio
import json
import sys

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

job = json.load(sys.stdin)
llm = OpenAILike(
    model=job["model"],
    api_base=f"{job['url']}/v1",
    api_key=job["key"],
    is_chat_model=True,
    is_function_calling_model=True,
    temperature=0,
)


class Country(BaseModel):
    """A country and its capital."""

    name: str
    capital: str


def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return "sunny" if city == "Paris" else "unknown"


async def agent() -> str:
    agent = FunctionAgent(tools=[get_weather], llm=llm)
    return str(await agent.run("What is the weather in Paris?"))


tool = FunctionTool.from_defaults(get_weather)
question = "What is the weather in Paris?"
answer = llm.chat_with_tools([tool], user_msg=question)
calls = [[call.tool_name, call.tool_kwargs] for call in llm.get_tool_calls_from_response(answer)]
template = PromptTemplate("What is the capital of {country}?")
structured = llm.structured_predict(Country, template, country="France").model_dump()
print(json.dumps({"calls": calls, "then": asyncio.run(agent()), "structured": structured}))
