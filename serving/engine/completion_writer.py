"""Create Completion on the engine side: writes the final bytes of the client's response.

The wire format is in `api/completion.py`; here is only when which part is written. The engine
writes it, and not the router, so that the router can relay bytes that it never parses.
"""

from __future__ import annotations

from serving.api.completion import stream_event, whole_response
from serving.engine.interface import Chunk, Engine, Reply
from serving.errors import EngineFailed
from serving.wire.messages import JSON_HEAD, SSE_HEAD, CompletionCall, End


async def run_completion(engine: Engine, call: CompletionCall, reply: Reply) -> End:
    """Generate `call` and write its response, streamed or whole; returns what it used.

    Raises:
        ServingError: the request cannot be served (nothing may have been written yet).
    """
    writer = _Writer(call, reply)
    emit = writer.stream if call.stream else writer.collect
    await engine.generate_paced(call, emit, reply.drained)
    if writer.end is None:
        raise EngineFailed("the engine stopped before the completion was finished")
    return writer.end


class _Writer:
    """One response; its two methods are what an engine may emit to."""

    __slots__ = ("_call", "_reply", "_started", "_texts", "end")

    def __init__(self, call: CompletionCall, reply: Reply) -> None:
        self._call = call
        self._reply = reply
        self._started = False
        # Of a stream: what could not be written while the router did not read.
        self._texts: list[str] = []
        self.end: End | None = None

    def stream(self, chunk: Chunk) -> None:
        """An event per chunk; one for all that came while the router did not read."""
        reply, text = self._reply, chunk.text
        if not self._started:
            self._started = True
            reply.head(SSE_HEAD)
        if chunk.finish_reason is None:
            if not text:
                return
            if not reply.writable:
                self._texts.append(text)
                return
        if self._texts:
            text = "".join((*self._texts, text))
            self._texts.clear()
        if chunk.finish_reason is None:
            reply.data(stream_event(text))
        else:
            self.end = _end(chunk)
            reply.data(stream_event(text, self.end, self._call.served_model))

    def collect(self, chunk: Chunk) -> None:
        """The whole text at the end."""
        self._texts.append(chunk.text)
        if chunk.finish_reason is not None:
            self.end = _end(chunk)
            self._reply.head(JSON_HEAD)
            text = "".join(self._texts)
            self._reply.data(whole_response(text, self.end, self._call.served_model))


def _end(chunk: Chunk) -> End:
    return End(
        finish_reason=chunk.finish_reason,
        prompt_tokens=chunk.prompt_tokens,
        completion_tokens=chunk.completion_tokens,
        queue_s=chunk.queue_s,
    )
