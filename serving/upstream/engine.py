"""A hosted provider's model behind the engine interface; it runs in the router's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from serving.catalogue.spec import UpstreamSpec
from serving.engine.interface import Chunk, Drained, Emit, Engine, EngineLoad, Reply, Tally
from serving.upstream.attempt import Event
from serving.upstream.client import ProviderClient
from serving.upstream.dialects import DIALECTS, chat_body
from serving.upstream.openai_calls import chat_form, completions_form
from serving.wire.messages import JSON_HEAD, SSE_HEAD, CompletionCall, HttpCall

_encode = msgspec.json.encode


class UpstreamEngine(Engine):
    """One model of one provider."""

    def __init__(self, spec: UpstreamSpec, client: ProviderClient) -> None:
        self.spec = spec
        self.client = client
        self.max_model_len = spec.context or 0
        self._dialect = DIALECTS[client.provider.dialect]
        self._running = 0

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        """See `Engine.generate`."""
        await self.generate_paced(call, emit, _at_once, tally)

    async def generate_paced(
        self, call: CompletionCall, emit: Emit, drained: Drained, tally: Tally
    ) -> None:
        """See `Engine.generate_paced`. While the client does not read, nothing is read from the
        provider either, and TCP slows the provider down."""
        body = chat_body(call, self.spec, self._dialect)
        async with self._exchange(body, tally) as (events, heard):
            async for event in events:
                if text := heard.add(event):
                    emit(Chunk(text))
                    await drained()
        emit(Chunk("", tally.finish_reason or "stop"))

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        """Answer `/v1/chat/completions` and `/v1/completions`; see `openai_calls.py`."""
        make = completions_form if call.path == "/v1/completions" else chat_form
        form = make(call, body, self.spec, self._dialect)
        async with self._exchange(form.body, tally) as (events, heard):
            reply.head(SSE_HEAD if form.streams else JSON_HEAD)
            async for event in events:
                heard.add(event)
                if (answer := form.render(event)) is not None:
                    data = _encode(answer)
                    reply.data(b"data: %b\n\n" % data if form.streams else data)
                    await reply.drained()
        if form.streams:
            reply.data(b"data: [DONE]\n\n")
        tally.finish_reason = tally.finish_reason or "stop"

    @asynccontextmanager
    async def _exchange(
        self, body: dict[str, Any], tally: Tally
    ) -> AsyncIterator[tuple[AsyncIterator[Event], _Heard]]:
        """Send one chat request; gives the answer's events, and a `_Heard` to add each of them to.

        Once the block is entered, the provider has begun to answer. An answer without usage is
        reported when it ends, breaks off or is cancelled; nothing is estimated.
        """
        self._running += 1
        try:
            async with self.client.exchange(body) as events:
                heard = _Heard(tally)
                try:
                    yield events, heard
                finally:
                    if not heard.usage:
                        self.client.without_usage(self.spec.id)
        finally:
            self._running -= 1

    def load(self) -> EngineLoad:
        """See `Engine.load`. `waiting` counts the requests for any model of the provider."""
        return EngineLoad(self._running, self.client.waiting)

    async def check(self) -> None:
        """Never raises: a provider that fails is no reason to replace anything here."""

    async def close(self) -> None:
        """Does nothing: the connections belong to the provider's client."""


class _Heard:
    """Reads an answer's events: the text of its first choice, how that ended, and the usage."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self.usage = False  # True once the provider has said it

    def add(self, event: Event) -> str:
        """Take one event in; returns the text that it adds to the first choice."""
        tally = self._tally
        if isinstance(usage := event.get("usage"), dict):
            # Gemini sends the usage so far with every event.
            self.usage = True
            tally.prompt_tokens = _count(usage.get("prompt_tokens"))
            tally.completion_tokens = _count(usage.get("completion_tokens"))
        added = ""
        for choice in event["choices"]:
            if choice.get("index") or 0:
                continue
            tally.finish_reason = choice.get("finish_reason") or tally.finish_reason
            said = choice.get("delta") or choice.get("message")
            if isinstance(said, dict):
                # Where a model refuses to answer, OpenAI has its words in `refusal`.
                text = said.get("content") or said.get("refusal")
                added += text if isinstance(text, str) else ""
        return added


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


async def _at_once() -> None:
    pass
