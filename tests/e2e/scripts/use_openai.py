"""Calls tools with the openai client: whole, streamed, forced, and parsed by pydantic."""

from __future__ import annotations

import json
import sys
from typing import Any

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

job = json.load(sys.stdin)
client = OpenAI(api_key=job["key"], base_url=f"{job['url']}/v1")
GET_WEATHER: Any = {
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
QUESTION: Any = {"role": "user", "content": "What is the weather in Paris?"}


class User(BaseModel):
    name: str
    age: int


class Country(BaseModel):
    name: str
    capital: str


def ask(messages: list[Any], **more: Any) -> Any:
    return client.chat.completions.create(
        model=job["model"], messages=messages, temperature=0, **more
    )


def whole() -> Any:
    """A tool is called, and its result is told."""
    first = ask([QUESTION], tools=[GET_WEATHER]).choices[0]
    (call,) = first.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    second = ask([QUESTION, first.message, result], tools=[GET_WEATHER]).choices[0]
    return {
        "finish_reason": first.finish_reason,
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "then": second.message.content,
        "ended": second.finish_reason,
    }


def streamed() -> Any:
    names, pieces, ids, reason = [], [], [], None
    for chunk in ask([QUESTION], tools=[GET_WEATHER], stream=True):
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or []:
            assert call.index == 0
            names += [call.function.name] if call.function.name else []
            ids += [call.id] if call.id else []
            pieces += [call.function.arguments] if call.function.arguments else []
    return {"names": names, "pieces": pieces, "ids": len(ids), "finish_reason": reason}


def forced() -> Any:
    """The model would answer this without a tool."""
    hello: Any = {"role": "user", "content": "Hello!"}
    named = {"type": "function", "function": {"name": "get_weather"}}
    found = {}
    for name, choice in (("required", "required"), ("named", named), ("none", "none")):
        message = ask([hello], tools=[GET_WEATHER], tool_choice=choice).choices[0].message
        found[name] = [call.function.name for call in message.tool_calls or []]
    found["auto"] = ask([hello], tools=[GET_WEATHER]).choices[0].message.content
    return found


def parsed() -> Any:
    """A pydantic model as the format of the answer, and as a tool."""
    parse = client.chat.completions.parse
    said: Any = [{"role": "user", "content": "Jason is 25 years old."}]
    asked: Any = [{"role": "user", "content": "What is the capital of France?"}]
    options: Any = {"model": job["model"], "temperature": 0}
    country = parse(messages=asked, response_format=Country, **options)
    user = parse(messages=said, tools=[pydantic_function_tool(User)], **options)
    (call,) = user.choices[0].message.tool_calls or []
    with client.chat.completions.stream(messages=asked, response_format=Country, **options) as it:
        final = it.get_final_completion()
    return {
        "country": country.choices[0].message.parsed.model_dump(),
        "user": call.function.parsed_arguments.model_dump(),
        "streamed": final.choices[0].message.parsed.model_dump(),
    }


print(json.dumps({f.__name__: f() for f in (whole, streamed, forced, parsed)}))
