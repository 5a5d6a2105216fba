"""A test double: a local server that speaks hosted providers' OpenAI-compatible dialects.

Shapes as published, or as users report them:

- OpenAI: platform.openai.com/docs/api-reference/chat and .../guides/error-codes; a refused key is
  repeated in the error, and with `include_usage` every chunk has `usage: null` but the last.
- Anthropic: docs.anthropic.com/en/api/openai-sdk, .../api/errors, .../build-with-claude/streaming
  (`event: error` in a stream; status 200 before it).
- Gemini: ai.google.dev/gemini-api/docs/openai; errors are a JSON list, with how long to wait in
  the details (github.com/n4ze3m/page-assist issues 406 and 418); usage comes with every chunk.

Each request takes the next step of `Double.script`, or the last one again.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from serving.http.listener import HttpServer, listen
from tests.provider_apis import APIS, Api

WORDS = ("Hello", " there", "!")
PROMPT_TOKENS = 9


@dataclass(frozen=True)
class Step:
    """How to answer one request.

    `status`: above 399 the answer is an error of the dialect, with `headers`. `body`: takes the
    place of the error or the answer. `words`: the answer. `delay_s`: before the answer; `pace_s`:
    between chunks.
    `breaks`: after that many chunks the connection is cut (`cut`), the stream ends without a finish
    reason (`short`), there is an error event (`error`), or silence (`hang`).
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    words: tuple[str, ...] = WORDS
    finish_reason: str = "stop"
    usage: bool = True
    delay_s: float = 0.0
    pace_s: float = 0.0
    breaks: str = ""
    after: int = 1
    content_type: str = "application/json"


@dataclass
class Seen:
    """One request as it came, and what became of it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    sent: int = 0
    closed_by_client: bool = False
    finished: bool = False


class Double:
    """An ASGI app of one provider."""

    def __init__(self, dialect: str, key: str) -> None:
        self.dialect = dialect
        self.keys = {key}
        self.script: list[Step] = [Step()]
        self.requests: list[Seen] = []
        self.at_once = 0
        self.most_at_once = 0
        self.server: HttpServer | None = None

    @property
    def base_url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.port}/v1"

    async def close(self) -> None:
        if self.server is not None:
            await self.server.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        data = b""
        while (message := await receive()).get("more_body") or message.get("body"):
            data += message["body"]
            if not message.get("more_body"):
                break
        seen = Seen(scope["path"], headers, json.loads(data))
        self.requests.append(seen)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        answering = asyncio.create_task(self._answer(seen, step, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
                seen.finished = True
            else:
                seen.closed_by_client = True
        finally:
            self.at_once -= 1
            for task in (answering, leaving):
                task.cancel()

    async def _answer(self, seen: Seen, step: Step, send: Send) -> None:
        await asyncio.sleep(step.delay_s)
        key = seen.headers.get("authorization", "").removeprefix("Bearer ")
        if "/messages" in seen.path:  # Anthropic's own API has a header of its own for it
            assert not key
            key = seen.headers.get("x-api-key", "")
        if key not in self.keys:
            status, body = _refused_key(self.dialect, key)
            await _respond(send, status, {}, body)
        elif step.status >= 400 or step.body is not None:
            body = step.body
            if body is None:
                body = error_body(self.dialect, step.status, f"something is wrong ({step.status})")
            await _respond(send, step.status, step.headers, body, step.content_type)
        elif (api := APIS.get(seen.path.removeprefix("/v1"))) is not None:
            await self._answer_in(api, seen, step, send)
        elif seen.body.get("stream"):
            await self._stream(seen, step, send)
        else:
            await _respond(send, 200, step.headers, self._whole(seen, step))

    async def _answer_in(self, api: Api, seen: Seen, step: Step, send: Send) -> None:
        """An answer in one of the APIs beside chat: its events, or the whole of it."""
        model = f"{seen.body['model']}-resolved"
        found = api(model, step.words, PROMPT_TOKENS if step.usage else None)
        if not seen.body.get("stream"):
            await _respond(send, 200, step.headers, found[-1])
            return
        kind = (b"content-type", b"text/event-stream")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        sent = found[:-1]
        if step.breaks:
            sent = sent[: step.after]
            if step.breaks == "error":
                sent.append(error_body(self.dialect, 503, "The server had an error"))
        for event in sent:
            name = event.get("type", "error")
            frame = f"event: {name}\ndata: {json.dumps(event)}\n\n".encode()
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            seen.sent += len(frame)
            await asyncio.sleep(step.pace_s)
        if step.breaks == "hang":
            await asyncio.Event().wait()
        if step.breaks != "cut":
            await send({"type": "http.response.body", "body": b""})

    def _whole(self, seen: Seen, step: Step) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(step.words)}
        if self.dialect == "openai":
            message["refusal"] = None
        choice = {"index": 0, "message": message, "finish_reason": step.finish_reason}
        answer = {**_head(seen, "chat.completion"), "choices": [choice]}
        if step.usage:
            answer["usage"] = _usage(len(step.words))
        return answer

    async def _stream(self, seen: Seen, step: Step, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )

        async def event(data: Any, name: str = "") -> None:
            lines = f"event: {name}\n" if name else ""
            text = data if isinstance(data, str) else json.dumps(data)
            frame = f"{lines}data: {text}\n\n".encode()
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            seen.sent += len(frame)

        with_usage = (seen.body.get("stream_options") or {}).get("include_usage")
        head = _head(seen, "chat.completion.chunk")
        for number, word in enumerate(step.words):
            if step.breaks and number == step.after:
                await self._break(step, event)
                if step.breaks != "cut":  # else the listener closes the connection in the middle
                    await send({"type": "http.response.body", "body": b""})
                return
            delta = {"content": word, **({"role": "assistant"} if number == 0 else {})}
            chunk: dict[str, Any] = {
                **head,
                "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
            }
            if with_usage and self.dialect == "openai":
                chunk["usage"] = None
            if step.usage and self.dialect == "gemini":
                chunk["usage"] = _usage(number + 1)
            await event(chunk)
            await asyncio.sleep(step.pace_s)
        last: dict[str, Any] = {
            **head,
            "choices": [{"index": 0, "delta": {}, "finish_reason": step.finish_reason}],
        }
        if step.usage and self.dialect == "gemini":
            last["usage"] = _usage(len(step.words))
        await event(last)
        if step.usage and with_usage and self.dialect != "gemini":
            await event({**head, "choices": [], "usage": _usage(len(step.words))})
        await event("[DONE]")
        await send({"type": "http.response.body", "body": b""})

    async def _break(self, step: Step, event: Any) -> None:
        if step.breaks == "hang":
            await asyncio.Event().wait()
        if step.breaks == "error":
            body = error_body(self.dialect, 503, "The server had an error")
            await event(body, "error" if self.dialect == "anthropic" else "")


def error_body(dialect: str, status: int, message: str, code: str | None = None) -> Any:
    """An error as `dialect` writes it."""
    if dialect == "anthropic":
        kinds = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error",
                 503: "overloaded_error", 529: "overloaded_error"}  # fmt: skip
        error = {"type": kinds.get(status, "api_error"), "message": message}
        return {"type": "error", "error": error, "request_id": "req_011C"}
    if dialect == "gemini":
        statuses = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        error = {"code": status, "message": message, "status": statuses.get(status, "UNAVAILABLE")}
        return [{"error": error}]
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _refused_key(dialect: str, key: str) -> tuple[int, Any]:
    if dialect == "gemini":
        (body,) = error_body(dialect, 400, "API key not valid. Please pass a valid API key.")
        body["error"]["details"] = [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        ]
        return 400, [body]
    if dialect == "anthropic":
        error = {"type": "authentication_error", "message": "invalid x-api-key"}
        return 401, {"type": "error", "error": error}
    message = f"Incorrect API key provided: {key}. You can find your API key at https://platform."
    return 401, error_body(dialect, 401, message, "invalid_api_key")


def _head(seen: Seen, kind: str) -> dict[str, Any]:
    model = f"{seen.body['model']}-resolved"
    return {"id": "chatcmpl-1", "object": kind, "created": 1_760_000_000, "model": model}


def _usage(completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": PROMPT_TOKENS + completion,
    }


async def _respond(
    send: Send,
    status: int,
    headers: dict[str, str],
    body: Any,
    content_type: str = "application/json",
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs += [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": data})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def open_double(dialect: str = "openai") -> Double:
    """A double on a port of its own, over loopback TCP; `close` it."""
    double = Double(dialect, f"sk-{dialect}-canary-0123456789")
    double.server = HttpServer(double, listen("127.0.0.1"))
    await double.server.start()
    return double
