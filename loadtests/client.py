"""Sends one request and records its answer as a client sees it: text, times and errors."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

CREATE_COMPLETION = "/v4/completions"
OPENAI = "/v1/completions"
CHAT = "/v1/chat/completions"


@dataclass
class Result:
    """What one stream said and when, in seconds since the request was sent."""

    status: int = 0
    error: str | None = None
    text: str = ""
    finish_reason: str | None = None
    completion_tokens: int = 0
    first_byte_s: float | None = None
    total_s: float = 0.0
    # Times between events with text. Events that arrived together have a gap of 0.
    gaps_s: list[float] = field(default_factory=list)


@dataclass
class Capture:
    """The bytes of a response and when they arrived.

    `result` parses them afterwards: a client that parses while it measures also measures itself.
    """

    path: str
    status: int = 0
    error: str | None = None
    request_id: str = ""
    started: float = 0.0
    ended: float = 0.0
    parts: list[tuple[float, bytes]] = field(default_factory=list)

    def result(self) -> Result:
        """Parse the response. A failure is noted in the result and not raised."""
        result = Result(self.status, self.error, total_s=self.ended - self.started)
        if self.error is None and self.status != 200:
            result.error = f"{self.status}: {_reason(b''.join(data for _, data in self.parts))}"
        if result.error is not None:
            return result
        take = _TAKE[self.path]
        rest, last = b"", self.started
        for at, data in self.parts:
            *frames, rest = (rest + data).split(b"\n\n")
            for frame in frames:
                if frame.startswith(b":"):
                    continue
                if take(frame, result):
                    if result.first_byte_s is None:
                        result.first_byte_s = at - self.started
                    else:
                        result.gaps_s.append(at - last)
                    last = at
        if result.error is None and rest:
            result.error = "the last frame is not closed by a blank line"
        elif result.error is None and result.finish_reason is None:
            result.error = "the stream ended without a finish reason"
        return result


def request_body(path: str, model: str, prompt: str, max_tokens: int | None) -> dict[str, Any]:
    """Return a greedy, streamed request for `path`. A chat has the prompt as its one message."""
    body: dict[str, Any] = {"model": model, "stream": True}
    if path == CHAT:
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    if path == CREATE_COMPLETION:
        return body | {"model_parameters": {"temperature": 0, "max_tokens": max_tokens}}
    options = {"temperature": 0, "stream_options": {"include_usage": True}}
    return body | options | ({} if max_tokens is None else {"max_tokens": max_tokens})


async def capture(
    session: aiohttp.ClientSession, url: str, key: str, path: str, body: dict[str, Any]
) -> Capture:
    """Send one request and record its response until it ends."""
    found = Capture(path, started=time.perf_counter())
    try:
        async with session.post(url + path, json=body, headers={"x-api-key": key}) as response:
            found.status = response.status
            found.request_id = response.headers.get("x-request-id", "")
            async for data in response.content.iter_any():
                found.parts.append((time.perf_counter(), data))
    except (TimeoutError, aiohttp.ClientError) as error:
        found.error = f"{type(error).__name__}: {error}"
    found.ended = time.perf_counter()
    return found


async def stream_completion(
    session: aiohttp.ClientSession, url: str, key: str, path: str, body: dict[str, Any]
) -> Result:
    """Send one request and parse its response."""
    return (await capture(session, url, key, path, body)).result()


def _take_completion(frame: bytes, result: Result) -> bool:
    """Add an event to `result`; True if it carries a part of the completion."""
    if frame.startswith(b"event: error"):
        result.error = f"event: error: {_reason(frame.partition(b'data: ')[2])}"
        return False
    event = json.loads(frame.removeprefix(b"data: "))
    result.text += event["completion"]["text"]
    result.finish_reason = event["completion"]["finish_reason"]
    if event["token_usage"] is not None:
        result.completion_tokens = event["token_usage"]["completion"]
    return True


def _take_openai(frame: bytes, result: Result) -> bool:
    choices = _choices(frame, result)
    for choice in choices:
        result.text += choice["text"]
    return bool(choices)


def _take_chat(frame: bytes, result: Result) -> bool:
    deltas = [choice["delta"] for choice in _choices(frame, result)]
    for delta in deltas:
        result.text += delta.get("content") or ""
    # The first event has the role and carries no token.
    return any("role" not in delta for delta in deltas)


_TAKE = {CREATE_COMPLETION: _take_completion, OPENAI: _take_openai, CHAT: _take_chat}


def _choices(frame: bytes, result: Result) -> list[dict[str, Any]]:
    """Return the choices of an OpenAI event. Its usage, finish reason or error goes to `result`."""
    data = frame.removeprefix(b"data: ")
    if data == b"[DONE]":
        return []
    event = json.loads(data)
    if "error" in event:
        result.error = f"error event: {_reason(data)}"
        return []
    choices: list[dict[str, Any]] = event["choices"]
    for choice in choices:
        result.finish_reason = choice["finish_reason"] or result.finish_reason
    if event.get("usage"):
        result.completion_tokens = event["usage"]["completion_tokens"]
    return choices


def _reason(body: bytes) -> str:
    """Return an error's message without its request ID, so that equal errors can be counted."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]
