"""Runs one call on an engine and writes its answer in the form that the call asks for.

An OpenAI answer of an engine's app goes out as it is, unless its call names a form: then a reply
that stands between the app and the caller rewrites it here, so that a router relays bytes of every
form alike.
"""

from __future__ import annotations

from serving.engine.completion_writer import run_completion
from serving.engine.interface import Engine, Reply, Tally
from serving.wire.messages import UNMARKED, Call, CompletionCall, Head, HttpCall

_DONE = b"data: [DONE]\n\n"


async def run_call(engine: Engine, call: Call, body: bytes, reply: Reply, tally: Tally) -> None:
    """Run `call` to its end.

    Raises:
        ServingError: the request cannot be served. If the engine failed on the way, a part of the
            response has been written.
    """
    if isinstance(call, CompletionCall):
        await run_completion(engine, call, reply, tally)
    elif not call.form:
        await engine.http(call, body, reply, tally)
    else:
        await engine.http(call, body, _formed(call, reply), tally)


def _formed(call: HttpCall, reply: Reply) -> Reply:
    if call.form == UNMARKED:
        return Unmarked(reply)
    raise ValueError(f"no such form of an answer: {call.form}")


class Unmarked:
    """A reply whose stream loses its end mark.

    No event can end like the mark: the JSON of an event ends in a brace.
    """

    __slots__ = ("_reply",)

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def writable(self) -> bool:
        return self._reply.writable

    def head(self, head: Head) -> None:
        self._reply.head(head)

    def data(self, data: bytes) -> None:
        if data.endswith(_DONE):
            data = data[: -len(_DONE)]
        if data:
            self._reply.data(data)

    async def drained(self) -> None:
        await self._reply.drained()
