"""Create Completion on the engine side: writes the final bytes of the client's response.

The wire format is in `api/completion.py`; here is only when which part is written. The engine
writes it, and not the router, so that the router can relay bytes that it never parses.
"""

from __future__ import annotations

from contextlib import aclosing

from serving.api.completion import stream_event, whole_response
from serving.engine.protocol import Chunk, CompletionCall, End, Engine, Head, Reply
from serving.errors import EngineFailed

_SSE_HEAD = Head(200, (("content-type", "text/event-stream; charset=utf-8"),))
_JSON_HEAD = Head(200, (("content-type", "application/json"),))


async def run_completion(engine: Engine, call: CompletionCall, reply: Reply) -> End:
    """Generate `call` and write its response, streamed or whole; returns what it used.

    Raises:
        ServingError: the request cannot be served (nothing may have been written yet).
    """
    texts: list[str] = []
    last: Chunk | None = None
    async with aclosing(engine.generate(call)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if not call.stream:
                texts.append(chunk.text)
            elif last is None:
                reply.head(_SSE_HEAD)
            if chunk.finish_reason is None:
                if call.stream and chunk.text:
                    reply.data(stream_event(chunk.text))
                    await reply.drained()
            elif call.stream:
                reply.data(stream_event(chunk.text, _end(chunk), call.served_model))
            last = chunk
    if last is None or last.finish_reason is None:
        raise EngineFailed("the engine stopped before the completion was finished")
    end = _end(last)
    if not call.stream:
        reply.head(_JSON_HEAD)
        reply.data(whole_response("".join(texts), end, call.served_model))
    return end


def _end(chunk: Chunk) -> End:
    return End(
        finish_reason=chunk.finish_reason,
        prompt_tokens=chunk.prompt_tokens,
        completion_tokens=chunk.completion_tokens,
        queue_s=chunk.queue_s,
    )
