"""Create Completion on the engine side: writes the final bytes of the client's response.

The formats are in `api/completion.py` and `api/model_calls.py`; this module decides when each part
is written. The engine server writes the response, so that the router relays bytes that it never
parses.
"""

from __future__ import annotations

import asyncio

from serving.api import model_calls
from serving.api.completion import stream_event, whole_response
from serving.engine.interface import Chunk, Engine, Reply, Tally
from serving.errors import EngineFailed
from serving.wire.messages import JSON_HEAD, SSE_HEAD, CompletionCall, End


async def run_completion(engine: Engine, call: CompletionCall, reply: Reply, tally: Tally) -> None:
    """Generate `call` and write its response, streamed or whole.

    Raises:
        ServingError: the request cannot be served. If the engine failed on the way, a part of the
            response has been written.
    """
    writer = _Writer(call, reply, tally)
    emit = writer.stream if call.stream else writer.collect
    try:
        await engine.generate_paced(call, emit, reply.drained, tally)
    except asyncio.CancelledError:
        if call.stream and tally.finish_reason is not None:  # ended, and not by its client
            writer.stream(Chunk("", tally.finish_reason))
        raise
    if tally.finish_reason is None:
        raise EngineFailed("the engine stopped before the completion was finished")


def _whole_completion(call: CompletionCall, text: str, end: End) -> bytes:
    return whole_response(text, end, call.served_model)


# By the form that a call asks for: what writes an event, and what writes a whole answer.
_FORMS = {
    "": (stream_event, _whole_completion),
    model_calls.FORM: (model_calls.model_event, model_calls.model_whole),
}


class _Writer:
    """Writes one response; an engine emits to `stream` or to `collect`."""

    __slots__ = ("_call", "_event", "_reply", "_started", "_tally", "_texts", "_whole")

    def __init__(self, call: CompletionCall, reply: Reply, tally: Tally) -> None:
        self._call = call
        self._event, self._whole = _FORMS[call.form]
        self._reply = reply
        self._tally = tally
        self._started = False
        # Not written yet: all of a whole response; of a stream, the texts that came while the
        # router did not read.
        self._texts: list[str] = []

    def stream(self, chunk: Chunk) -> None:
        """Write an event per chunk, and one for all chunks that came while the router did not
        read."""
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
            reply.data(self._event(text))
        else:
            reply.data(self._event(text, self._end(chunk), self._call.served_model))

    def collect(self, chunk: Chunk) -> None:
        """Write the whole response with the last chunk."""
        self._texts.append(chunk.text)
        if chunk.finish_reason is not None:
            self._reply.head(JSON_HEAD)
            text = "".join(self._texts)
            self._reply.data(self._whole(self._call, text, self._end(chunk)))

    def _end(self, last: Chunk) -> End:
        self._tally.finish_reason = last.finish_reason
        return self._tally.end()
