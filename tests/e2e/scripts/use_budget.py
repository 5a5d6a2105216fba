"""Reads a stream with the openai client whose budget is used up on its way; prints what came and
what was raised as JSON.

The job has `base_url`, `key`, `model`, `prompt` and `endpoint`: `chat`, `completions`, `responses`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
from openai import APIError, OpenAI

job = json.load(sys.stdin)
client = OpenAI(
    api_key=job["key"], base_url=job["base_url"], http_client=httpx.Client(trust_env=False)
)


def texts() -> Iterator[str]:
    given: Any = {"model": job["model"], "stream": True}
    prompt = job["prompt"]
    if job["endpoint"] == "completions":
        for chunk in client.completions.create(prompt=prompt, max_tokens=999, **given):
            yield from (choice.text for choice in chunk.choices)
    elif job["endpoint"] == "chat":
        messages = [{"role": "user", "content": prompt}]
        for chunk in client.chat.completions.create(messages=messages, **given):
            yield from (choice.delta.content or "" for choice in chunk.choices)
    else:
        for event in client.responses.create(input=prompt, **given):
            if event.type == "response.output_text.delta":
                yield event.delta


found: dict[str, Any] = {"text": "", "error": None}
try:
    for text in texts():
        found["text"] += text
except APIError as error:
    found |= {"error": type(error).__name__, "code": error.code, "message": error.message}
print(json.dumps(found))
