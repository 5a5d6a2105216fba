"""Runs in scale-llm-engine's own environment: one call for each item of the job on standard input.

`method` names it, as in `Completion.create`. Prints a JSON list: what came back, or the SDK's
exception.
"""

import asyncio
import functools
import json
import os
import sys
from typing import Any

job = json.load(sys.stdin)
os.environ["LLM_ENGINE_BASE_PATH"] = job["url"] + "/"
os.environ["SCALE_API_KEY"] = job["key"]

import llmengine  # noqa: E402
from llmengine import errors  # noqa: E402

ERRORS = tuple(at for at in vars(errors).values() if isinstance(at, type))


async def in_async(**arguments: Any) -> Any:
    answer = await llmengine.Completion.acreate(**arguments)
    return [chunk async for chunk in answer] if arguments.get("stream") else answer


def call(method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        if method == "Completion.acreate":
            answer = asyncio.run(in_async(**arguments))
        else:
            answer = functools.reduce(getattr, method.split("."), llmengine)(**arguments)
        if arguments.get("stream"):
            return {"chunks": [json.loads(chunk.json()) for chunk in answer]}
        return {"answer": json.loads(answer.json())}
    except ERRORS as error:
        return {"error": type(error).__name__, "message": str(error)}


print(json.dumps([call(at["method"], at["arguments"]) for at in job["calls"]]))
