"""A hosted provider's model behind the engine interface; it runs in the router's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.catalogue.spec import UpstreamSpec
from serving.engine.interface import Chunk, Drained, Emit, Engine, EngineLoad, Reply, Tally
from serving.upstream.apis import http_form
from serving.upstream.chats import completion_form
from serving.upstream.client import ProviderClient
from serving.upstream.dialects import DIALECTS
from serving.upstream.form import Event, Form, Reading
from serving.wire.messages import JSON_HEAD, SSE_HEAD, Call, CompletionCall, HttpCall


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
        form = completion_form(call, self.spec, self._dialect)
        tally.images = len(call.images)
        async with self._exchange(form, call, tally) as (events, reading):
            async for event in events:
                if text := reading.text(event):
                    emit(Chunk(text))
                    await drained()
        emit(Chunk("", tally.finish_reason or "stop"))

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        """Answer the endpoints that the provider has an API for; see `apis.py`."""
        form = http_form(call, body, self.spec, self._dialect)
        async with self._exchange(form, call, tally) as (events, _):
            reply.head(SSE_HEAD if form.streams else JSON_HEAD)
            async for event in events:
                if data := form.render(event):
                    reply.data(data)
                    await reply.drained()
        if form.streams and form.end:
            reply.data(form.end)
        tally.finish_reason = tally.finish_reason or "stop"

    @asynccontextmanager
    async def _exchange(
        self, form: Form, call: Call, tally: Tally
    ) -> AsyncIterator[tuple[AsyncIterator[Event], Reading]]:
        """Send one request; gives the answer's events, and what has read them.

        Once the block is entered, the provider has begun to answer. An answer without usage is
        reported when it ends, breaks off or is cancelled; then it is guessed.
        """
        self._running += 1
        try:
            async with self.client.exchange(form, call.standing, tally) as (events, reading):
                try:
                    yield events, reading
                finally:
                    if not reading.known:
                        reading.estimate()
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


async def _at_once() -> None:
    pass
