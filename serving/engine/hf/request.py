"""A completion on the transformers engine: its place in the queue, its text so far and its end."""

from __future__ import annotations

import asyncio
import time

from serving.engine.fair_queue import Claim, Flow
from serving.engine.hf.sampling import Params, Sampler
from serving.engine.hf.text import Detokenizer, StopSequences
from serving.engine.interface import Chunk, Emit, Tally


class BatchedRequest:
    """One completion: made and awaited in the event loop, worked on in the model's thread, which
    also counts its tokens."""

    __slots__ = (
        "_detokenizer",
        "_parts",
        "_stops",
        "_stream",
        "claim",
        "done",
        "emit",
        "last",
        "over",
        "prompt",
        "queued",
        "sampler",
        "tally",
    )

    def __init__(
        self,
        prompt: list[int],
        params: Params,
        detokenizer: Detokenizer,
        emit: Emit,
        tally: Tally,
        *,
        stream: bool,
        flow: Flow,
        weight: float,
    ) -> None:
        self.prompt = prompt
        # Its place in the queue.
        self.claim = Claim("", flow, weight, len(prompt))
        self.claim.waiter = self
        self.tally = tally
        self.sampler = Sampler(params)
        self.emit = emit
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queued = time.monotonic()
        # True once it has its last token or its caller left: its row is free.
        self.over = False
        self.last = -1
        self._detokenizer = detokenizer
        self._stops = StopSequences(params.stop)
        self._stream = stream
        self._parts: list[str] = []

    def begin(self, now: float) -> None:
        """The model is about to run the prompt; `now` is in `time.monotonic` seconds."""
        self.tally.queue_s = now - self.queued
        self.tally.prompt_tokens = len(self.prompt)

    def take(self, token: int, ends: frozenset[int]) -> Chunk | None:
        """Add a token; returns the chunk to emit for it, if any."""
        self.tally.completion_tokens += 1
        self.last = token
        reason, text = None, ""
        if token in ends:
            reason = "stop"
        else:
            text = self._stops.push(self._detokenizer.push(token))
            if self._stops.found:
                reason = "stop"
            elif self.tally.completion_tokens >= self.sampler.params.max_tokens:
                reason = "length"
        if reason is not None:
            self.over = True
            text += self._stops.rest()
        if not self._stream:
            self._parts.append(text)
            if reason is None:
                return None
            text = "".join(self._parts)
        if not text and reason is None:
            return None
        return Chunk(text, reason)
