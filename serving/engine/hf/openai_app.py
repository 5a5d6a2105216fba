"""The OpenAI endpoints of the transformers engine: `/v1/completions`, `/v1/chat/completions`.

Response shapes are OpenAI's. What a request may ask for is in `openai_body.py`.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from typing import Any, Protocol

from serving.engine.bodies.check import BodyCheck
from serving.engine.bodies.limits import BodyLimits
from serving.engine.hf.openai_body import Body, ChatBody, CompletionBody, parse
from serving.engine.interface import Chunk, Emit, Reply, Tally
from serving.engine.prompts import Prompts
from serving.errors import EngineFailed, NotFound
from serving.wire.messages import JSON_HEAD, SSE_HEAD, HttpCall, Sampling, Standing

_DONE = b"data: [DONE]\n\n"


class Complete(Protocol):
    """Generates from token IDs; see `HfEngine.complete`."""

    async def __call__(
        self,
        prompt: list[int],
        sampling: Sampling,
        emit: Emit,
        tally: Tally,
        *,
        model: str,
        stream: bool,
        limit_name: str,
        standing: Standing,
    ) -> None: ...


class OpenAIEndpoints:
    """Answers `HttpCall`s."""

    def __init__(
        self, prompts: Prompts, complete: Complete, *, context: int, prompt_chars: int
    ) -> None:
        self._bodies = BodyCheck(
            BodyLimits(),
            {},  # the models of `openai_body.py` check the kinds themselves
            context=context,
            prompt_chars=prompt_chars,
            sequences=None,
            reserved={},
        )
        self._prompts = prompts
        self._complete = complete

    async def run(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        """Answer one request; cancelling this frees its row.

        Raises:
            ServingError: the request cannot be served; nothing has been written, unless the
                engine failed.
        """
        self._bodies.check(call.path, body)
        given: CompletionBody | ChatBody
        if call.path == "/v1/completions":
            given = parse(CompletionBody, body)
            prompt = await self._prompts.encode_text(given.prompt)
            writer: Writer = CompletionWriter(call, given, reply, tally)
        elif call.path == "/v1/chat/completions":
            given = parse(ChatBody, body)
            messages = [message.model_dump(exclude_none=True) for message in given.messages]
            prompt = await self._prompts.encode_chat(messages)
            writer = ChatWriter(call, given, reply, tally)
        else:
            raise NotFound(f"no such path: {call.path}")
        stream = bool(given.stream)
        await self._complete(
            prompt,
            given.sampling(),
            writer.stream if stream else writer.whole,
            tally,
            model=call.model,
            stream=stream,
            limit_name=given.limit_name,
            standing=call.standing,
        )
        if tally.finish_reason is None:
            raise EngineFailed("the engine stopped before the completion was finished")


class Writer(ABC):
    """Writes one response; the engine emits to `stream` or to `whole`."""

    kind: str
    chunk_kind: str
    id_prefix: str

    def __init__(self, call: HttpCall, body: Body, reply: Reply, tally: Tally) -> None:
        self._reply = reply
        self._tally = tally
        options = body.stream_options
        self._usage = bool(options and options.include_usage)
        # vLLM's extension: each event has the usage so far.
        self._counts = self._usage and bool(options and options.continuous_usage_stats)
        self._object: dict[str, Any] = {
            "id": f"{self.id_prefix}-{call.request_id}",
            "created": int(time.time()),
            "model": call.model,
        }
        self._started = False
        # Not written yet: all of a whole response; of a stream, the texts that came while the
        # router did not read.
        self._texts: list[str] = []

    @abstractmethod
    def first(self) -> dict[str, Any] | None:
        """The choice of the event that begins a stream, before any text; None: no such event."""

    @abstractmethod
    def part(self, text: str, reason: str | None) -> dict[str, Any]:
        """The choice of an event with `text`."""

    @abstractmethod
    def choice(self, text: str, reason: str) -> dict[str, Any]:
        """The choice of a whole response."""

    def stream(self, chunk: Chunk) -> None:
        """Write an event per chunk, and one for all chunks that came while the router did not
        read."""
        reply, reason = self._reply, chunk.finish_reason
        if not self._started:
            self._started = True
            reply.head(SSE_HEAD)
            if (first := self.first()) is not None:
                reply.data(self._event([first]))
        self._texts.append(chunk.text)
        if reason is None and not reply.writable:
            return
        text = "".join(self._texts)
        self._texts.clear()
        data = self._event([self.part(text, reason)])
        if reason is not None:
            self._tally.finish_reason = reason
            if self._usage:
                data += self._event([], _usage(self._tally))
            data += _DONE
        reply.data(data)

    def whole(self, chunk: Chunk) -> None:
        """Write the whole response with the last chunk."""
        self._texts.append(chunk.text)
        if chunk.finish_reason is None:
            return
        self._tally.finish_reason = chunk.finish_reason
        self._reply.head(JSON_HEAD)
        choice = self.choice("".join(self._texts), chunk.finish_reason)
        usage = _usage(self._tally)
        answer = {"object": self.kind, **self._object, "choices": [choice], "usage": usage}
        self._reply.data(json.dumps(answer).encode())

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        event = {"object": self.chunk_kind, **self._object, "choices": choices}
        if self._usage:
            event["usage"] = _usage(self._tally) if self._counts else usage
        return b"data: " + json.dumps(event).encode() + b"\n\n"


class CompletionWriter(Writer):
    kind = chunk_kind = "text_completion"
    id_prefix = "cmpl"

    def first(self) -> None:
        return None

    def part(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    def choice(self, text: str, reason: str) -> dict[str, Any]:
        return self.part(text, reason)


class ChatWriter(Writer):
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def first(self) -> dict[str, Any]:
        return self._delta({"role": "assistant", "content": ""}, None)

    def part(self, text: str, reason: str | None) -> dict[str, Any]:
        return self._delta({"content": text} if text else {}, reason)

    def choice(self, text: str, reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}

    def _delta(self, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _usage(tally: Tally) -> dict[str, int]:
    return {
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
        "total_tokens": tally.prompt_tokens + tally.completion_tokens,
    }
