"""A double whose OpenAI app answers as vLLM's does: for endpoints that rewrite what it says."""

from __future__ import annotations

import json
from typing import Any

from serving.engine.echo import EchoEngine
from serving.engine.interface import Reply, Tally
from serving.wire.messages import JSON_HEAD, SSE_HEAD, HttpCall

SAYS = ("Bon", "jour ", "🎉")
USED = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


class TalkingEngine(EchoEngine):
    """Says `SAYS` whatever it is asked, an event each; keeps the bodies it was sent."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.bodies: list[dict[str, Any]] = []

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        self.calls.append(call)
        await self.check()
        asked = json.loads(body)
        self.bodies.append(asked)
        self.running += 1
        tally.prompt_tokens = USED["prompt_tokens"]
        try:
            if asked.get("stream"):
                await self._stream(call, asked, reply, tally)
            else:
                await self._step()
                tally.completion_tokens = len(SAYS)
                reply.head(JSON_HEAD)
                choice = _choice(call, asked, "".join(SAYS), "stop", "message")
                answer = {"model": call.model, "choices": [choice], "usage": USED}
                reply.data(json.dumps(answer).encode())
        finally:
            self.running -= 1

    async def _stream(
        self, call: HttpCall, asked: dict[str, Any], reply: Reply, tally: Tally
    ) -> None:
        options = asked.get("stream_options") or {}
        reply.head(SSE_HEAD)
        for number, word in enumerate(SAYS, 1):
            await self._step()
            tally.completion_tokens = number
            reason = "stop" if number == len(SAYS) else None
            event: dict[str, Any] = {"choices": [_choice(call, asked, word, reason, "delta")]}
            if options.get("continuous_usage_stats"):
                event["usage"] = USED | {"completion_tokens": number}
            reply.data(b"data: " + json.dumps(event).encode() + b"\n\n")
        if options.get("include_usage"):
            reply.data(b"data: " + json.dumps({"choices": [], "usage": USED}).encode() + b"\n\n")
        reply.data(b"data: [DONE]\n\n")


def _choice(
    call: HttpCall, asked: dict[str, Any], text: str, reason: str | None, kind: str
) -> dict[str, Any]:
    words = {kind: {"role": "assistant", "content": text}}
    logprobs: dict[str, Any] | None = None
    if "chat" in call.path:
        if asked.get("logprobs"):
            logprobs = {"content": [{"token": text, "logprob": -0.5, "top_logprobs": []}]}
    else:
        words = {"text": text}  # type: ignore[dict-item]
        if asked.get("logprobs") is not None:
            logprobs = {"tokens": [text], "token_logprobs": [-0.5]}
    return {"index": 0, "finish_reason": reason, "logprobs": logprobs, **words}
