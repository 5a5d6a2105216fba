"""One completion stream, timed and checked, as a client sees it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

CREATE_COMPLETION = "/v4/completions"
OPENAI = "/v1/completions"


@dataclass
class Result:
    """What one stream did. Times in seconds since the request was sent."""

    status: int = 0
    error: str | None = None
    text: str = ""
    finish_reason: str | None = None
    completion_tokens: int = 0
    first_byte_s: float | None = None
    total_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)


def request_body(path: str, model: str, prompt: str, max_tokens: int | None) -> dict[str, Any]:
    """A greedy, streamed request in the dialect of `path`."""
    body: dict[str, Any] = {"model": model, "prompt": prompt, "stream": True}
    if path == CREATE_COMPLETION:
        return body | {"model_parameters": {"temperature": 0, "max_tokens": max_tokens}}
    options = {"temperature": 0, "stream_options": {"include_usage": True}}
    return body | options | ({} if max_tokens is None else {"max_tokens": max_tokens})


async def stream_completion(
    session: aiohttp.ClientSession, url: str, key: str, path: str, body: dict[str, Any]
) -> Result:
    """Run one stream to its end. Failures are in the result, not raised."""
    result = Result()
    take = _take_completion if path == CREATE_COMPLETION else _take_openai
    started = last = time.perf_counter()
    try:
        async with session.post(url + path, json=body, headers={"x-api-key": key}) as response:
            result.status = response.status
            if response.status != 200:
                result.error = f"{response.status}: {_reason(await response.read())}"
                return result
            async for frames in _frames(response):
                now = time.perf_counter()
                if result.first_byte_s is None:
                    result.first_byte_s = now - started
                else:
                    result.gaps_s.append(now - last)
                last = now
                for frame in frames:
                    take(frame, result)
        if result.error is None and result.finish_reason is None:
            result.error = "the stream ended without a finish reason"
    except (TimeoutError, aiohttp.ClientError) as error:
        result.error = f"{type(error).__name__}: {error}"
    finally:
        result.total_s = time.perf_counter() - started
    return result


async def _frames(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """Server-sent events, whole, without comments, as they arrive together."""
    rest = b""
    async for data in response.content.iter_any():
        rest += data
        *frames, rest = rest.split(b"\n\n")
        if frames := [frame for frame in frames if not frame.startswith(b":")]:
            yield frames
    if rest:
        raise aiohttp.ClientPayloadError("the last frame is not closed by a blank line")


def _take_completion(frame: bytes, result: Result) -> None:
    if frame.startswith(b"event: error"):
        result.error = f"event: error: {_reason(frame.partition(b'data: ')[2])}"
        return
    event = json.loads(frame.removeprefix(b"data: "))
    result.text += event["completion"]["text"]
    result.finish_reason = event["completion"]["finish_reason"]
    if event["token_usage"] is not None:
        result.completion_tokens = event["token_usage"]["completion"]


def _take_openai(frame: bytes, result: Result) -> None:
    data = frame.removeprefix(b"data: ")
    if data == b"[DONE]":
        return
    event = json.loads(data)
    if "error" in event:
        result.error = f"error event: {_reason(data)}"
        return
    for choice in event["choices"]:
        result.text += choice["text"]
        result.finish_reason = choice["finish_reason"] or result.finish_reason
    if event.get("usage"):
        result.completion_tokens = event["usage"]["completion_tokens"]


def _reason(body: bytes) -> str:
    """What an error says, without its request ID, so that equal errors can be counted."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]
