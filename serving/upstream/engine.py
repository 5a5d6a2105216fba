"""A hosted provider's model behind the engine interface; it runs in the router's own process."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.catalogue.spec import UpstreamSpec
from serving.engine.interface import Chunk, Drained, Emit, Engine, EngineLoad, Reply
from serving.upstream.attempt import Event
from serving.upstream.client import ProviderClient
from serving.upstream.dialects import DIALECTS, chat_body
from serving.upstream.openai_calls import chat_form, completions_form
from serving.wire.messages import JSON_HEAD, SSE_HEAD, CompletionCall, End, HttpCall

_encode = msgspec.json.encode


class UpstreamEngine(Engine):
    """One model of one provider."""

    def __init__(self, spec: UpstreamSpec, client: ProviderClient) -> None:
        self.spec = spec
        self.client = client
        self.max_model_len = spec.context or 0
        self._dialect = DIALECTS[client.provider.dialect]
        self._running = 0

    async def generate(self, call: CompletionCall, emit: Emit) -> None:
        """See `Engine.generate`."""
        await self.generate_paced(call, emit, _at_once)

    async def generate_paced(self, call: CompletionCall, emit: Emit, drained: Drained) -> None:
        """See `Engine.generate_paced`: while the client does not read, nothing is read of the
        provider either, which TCP lets it know."""
        body = chat_body(call, self.spec, self._dialect)
        self._running += 1
        try:
            tally = _Tally()
            async with self.client.exchange(body) as events:
                async for event in events:
                    if text := tally.add(event):
                        emit(Chunk(text, 0, 0))
                        await drained()
            end = self._end(tally)
            emit(Chunk("", end.prompt_tokens, end.completion_tokens, end.finish_reason))
        finally:
            self._running -= 1

    async def http(self, call: HttpCall, body: bytes, reply: Reply) -> End:
        """Answer `/v1/chat/completions` and `/v1/completions`; see `openai_calls.py`."""
        make = completions_form if call.path == "/v1/completions" else chat_form
        form = make(call, body, self.spec, self._dialect)
        self._running += 1
        try:
            tally = _Tally()
            async with self.client.exchange(form.body) as events:
                reply.head(SSE_HEAD if form.streams else JSON_HEAD)
                async for event in events:
                    tally.add(event)
                    if (answer := form.render(event)) is not None:
                        data = _encode(answer)
                        reply.data(b"data: %b\n\n" % data if form.streams else data)
                        await reply.drained()
            if form.streams:
                reply.data(b"data: [DONE]\n\n")
            return self._end(tally)
        finally:
            self._running -= 1

    def _end(self, tally: _Tally) -> End:
        """What the provider counted. Nothing is estimated: without its figures there are none."""
        usage = tally.usage
        if usage is None:
            self.client.without_usage(self.spec.id)
            usage = {}
        return End(
            finish_reason=tally.finish_reason or "stop",
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
        )

    def load(self) -> EngineLoad:
        """See `Engine.load`. `waiting` are the provider's, for a turn."""
        return EngineLoad(self._running, self.client.waiting)

    async def check(self) -> None:
        """A provider that fails is no reason to replace anything here."""

    async def close(self) -> None:
        """The connections are the provider's client's."""


class _Tally:
    """How the first choice of an answer ended, and what the answer took."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None

    def add(self, event: Event) -> str:
        """Take one event in; returns the text that it adds to the first choice."""
        if isinstance(usage := event.get("usage"), dict):
            self.usage = usage  # Gemini sends it with every event, counted so far
        added = ""
        for choice in event["choices"]:
            if choice.get("index") or 0:
                continue
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            said = choice.get("delta") or choice.get("message")
            if isinstance(said, dict):
                # OpenAI puts what a model says instead of an answer into `refusal`.
                text = said.get("content") or said.get("refusal")
                added += text if isinstance(text, str) else ""
        return added


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


async def _at_once() -> None:
    pass
