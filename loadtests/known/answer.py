"""One answer of the known server: it sends what its script says and writes down when."""

from __future__ import annotations

from typing import Protocol

from loadtests.known.dialects import Usage, Writer
from loadtests.known.log import Served
from loadtests.known.script import Script
from loadtests.known.ticker import Ticker

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"


class Wire(Protocol):
    """The connection that an answer goes to."""

    @property
    def ticker(self) -> Ticker:
        """The server's."""

    @property
    def closed(self) -> bool:
        """The client is gone."""

    def write(self, data: bytes) -> float:
        """Write, and return the time right before."""

    def over(self, at: float) -> None:
        """The request is done with."""

    def reset(self) -> None:
        """End the connection by a reset."""

    def cut(self) -> None:
        """End the connection in the midst of an answer, in an orderly way."""


class Answer:
    """One answer on its way."""

    def __init__(
        self,
        connection: Wire,
        served: Served,
        writer: Writer,
        todo: Script,
        stream: bool,
        usage_asked: bool,
        number: int,
    ) -> None:
        self._connection = connection
        self._served = served
        self._writer = writer
        self._todo = todo
        self._stream = stream
        self._asked = usage_asked
        self._number = number
        self._step = 0
        self._due = served.arrived
        self._chunk = _chunk(writer.event)

    def begin(self) -> None:
        """Wait for the first event, or for the whole answer."""
        if self._stream:
            self._next()
        else:
            self._due += sum(self._todo.delays)
            self._connection.ticker.at(self._due, self._whole)

    def _next(self) -> None:
        if self._step == len(self._todo.delays):
            self._finish()
            return
        self._due += self._todo.delays[self._step]
        self._connection.ticker.at(self._due, self._event)

    def _event(self) -> None:
        if self._connection.closed:
            return
        todo, step = self._todo, self._step
        if todo.end in ("error", "rejected"):
            self._refuse()
            return
        self._step += 1
        data = self._chunk
        if step == 0:
            head = _HEAD + b"x-request-id: %d\r\n\r\n" % self._number
            first = self._writer.first()
            data = head + (_chunk(first) if first else b"") + data
        if self._step == len(todo.delays) and todo.end == "whole":
            # The end goes with the last event, as engines send it.
            self._served.completion_tokens = self._step
            data += _chunk(self._writer.last(self._usage(), self._asked)) + b"0\r\n\r\n"
        at = self._connection.write(data)
        self._served.events.append(at)
        if self._step == len(todo.delays):
            self._served.completion_tokens = self._step
            self._finish()
            return
        self._next()

    def _finish(self) -> None:
        end = self._todo.end
        connection = self._connection
        if end == "whole":
            connection.over(self._served.events[-1])
        elif end == "reset":
            connection.reset()
        elif end == "error_event":
            connection.write(_chunk(self._writer.error()))
            connection.cut()
        elif end == "truncated":
            connection.cut()

    def _whole(self) -> None:
        if self._connection.closed:
            return
        if self._todo.end in ("error", "rejected"):
            self._refuse()
            return
        self._served.completion_tokens = len(self._todo.delays)
        body = self._writer.whole(len(self._todo.delays), self._usage())
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: %d\r\n"
        data = head % self._number + b"content-length: %d\r\n\r\n" % len(body) + body
        end = self._todo.end
        if end == "whole":
            self._connection.over(self._connection.write(data))
            return
        if end != "hung":
            self._connection.write(data[: len(data) - 10])
        self._finish()

    def _refuse(self) -> None:
        status = b"500 Internal Server Error"
        body = b'{"error": {"type": "server_error", "code": "known_error", "message": "no 1"}}'
        if self._todo.end == "rejected":
            status = b"429 Too Many Requests"
            body = body.replace(b"known_error", b"known_limit")
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nx-request-id: %d\r\n"
        head = head % (status, self._number) + b"content-length: %d\r\n\r\n" % len(body)
        self._connection.over(self._connection.write(head + body))

    def _usage(self) -> Usage | None:
        served = self._served
        if not self._todo.usage:
            return None
        return Usage(served.prompt_tokens, served.cached_tokens, served.completion_tokens)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
