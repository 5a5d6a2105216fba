"""A test double: an engine without a model, which repeats the prompt word by word.

For tests, and for benchmarks that isolate the router. A models file cannot deploy it.
"""

from __future__ import annotations

import asyncio
import json

from serving.api.audio import PATHS as AUDIO
from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.engine.interface import Chunk, Emit, Engine, EngineLoad, Reply, Tally
from serving.errors import ContextLengthExceeded, EngineFailed, InvalidRequest
from serving.wire.messages import (
    JSON_HEAD,
    SSE_HEAD,
    AdapterRef,
    CompletionCall,
    HttpCall,
)


class EchoEngine(Engine):
    """Says the prompt's words, one every `interval_s` seconds, with an adapter's ID before each.

    A word counts as a token. `engine_args: {interval_s: 0.02, repeat: 8}` in the spec make it wait
    20 ms before each word and say the prompt eight times.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.max_model_len = spec.context
        self.interval_s = float(spec.engine_args.get("interval_s", 0.0))
        self.repeat = int(spec.engine_args.get("repeat", 1))
        self.running = 0
        self.dead = False
        self.calls: list[CompletionCall | HttpCall] = []
        self._adapters: dict[str, AdapterRef] = {}

    @classmethod
    async def start(cls, spec: EngineSpec, images: ImageLimits) -> EchoEngine:
        """Ready at once."""
        return cls(spec)

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        """See `Engine.generate`."""
        self.calls.append(call)
        await self.check()
        if call.adapter is not None:
            self._adapters[call.adapter.id] = call.adapter
        prompt_words = call.prompt.split()
        room = self.max_model_len - len(prompt_words)
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt_words)} tokens; the context of model "
                f"'{call.model}' is {self.max_model_len} tokens",
                param="prompt",
            )
        said = prompt_words * self.repeat
        limit = room if call.sampling.max_tokens is None else call.sampling.max_tokens
        words, reason = (said[:limit], "length") if len(said) > limit else (said, "stop")
        mark = f"<{call.adapter.id}>" if call.adapter else ""
        self.running += 1
        tally.prompt_tokens, tally.queue_s = len(prompt_words), 0.0
        try:
            for word in words:
                await self._step()
                tally.completion_tokens += 1
                emit(Chunk(f"{mark}{word} "))
            emit(Chunk("", reason))
        finally:
            self.running -= 1

    async def _step(self) -> None:
        await asyncio.sleep(self.interval_s)
        await self.check()

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        """An OpenAI-like answer: the call's model and the body's length, or a stream of two words.
        It counts as a prompt of one token and a completion of two. A form may have any fields."""
        self.calls.append(call)
        await self.check()
        try:
            asked = {} if call.path in AUDIO else json.loads(body)
        except (ValueError, RecursionError):  # the router reads three fields only
            raise InvalidRequest("the body is not valid JSON") from None
        self.running += 1
        tally.prompt_tokens = 1
        try:
            if asked.get("stream"):
                reply.head(SSE_HEAD)
                for word in ("one", "two"):
                    await self._step()
                    tally.completion_tokens += 1
                    event = {"model": call.model, "choices": [{"index": 0, "text": word}]}
                    reply.data(b"data: " + json.dumps(event).encode() + b"\n\n")
                reply.data(b"data: [DONE]\n\n")
            else:
                await self._step()
                tally.completion_tokens = 2
                reply.head(JSON_HEAD)
                reply.data(json.dumps({"model": call.model, "bytes": len(body)}).encode())
        finally:
            self.running -= 1

    def load(self) -> EngineLoad:
        """See `Engine.load`."""
        return EngineLoad(self.running, 0, tuple(self._adapters))

    async def check(self) -> None:
        """See `Engine.check`."""
        if self.dead:
            raise EngineFailed("the engine is dead")

    async def close(self) -> None:
        """Nothing to free."""
