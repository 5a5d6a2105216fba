"""The known server: it answers each request as its script says and writes down what it did.

    python -m loadtests.known.server --port 9000 --log served.bin [--first 0.05] [--gap 0.02]

It prints the port that it listens on. On SIGTERM or SIGINT it writes the log and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import click
import httptools
import msgspec

from loadtests.known.dialects import ENDPOINTS, Body, Usage, Writer
from loadtests.known.log import Served, write_log
from loadtests.known.script import Script, Shape, script
from loadtests.loop import run, tune_collector

TICK_S = 0.001
_BODY = msgspec.json.Decoder(Body)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"


class Ticker:
    """Calls back at given times: one heap, looked at every millisecond while there is work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._armed = False

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at a time of CLOCK_MONOTONIC, or soon after."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, call))
        if not self._armed:
            self._armed = True
            self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._armed = False
        now = time.monotonic()
        heap = self._heap
        while heap and heap[0][0] <= now:
            heapq.heappop(heap)[2]()
        if heap and not self._armed:
            self._armed = True
            self._loop.call_later(TICK_S, self._tick)


@dataclass(frozen=True, slots=True)
class Stall:
    """The whole server stops for `seconds`, `after_s` from the first request."""

    after_s: float
    seconds: float


class KnownServer:
    """What all connections share."""

    def __init__(self, shape: Shape, seed: int, stall: Stall | None = None) -> None:
        self.shape = shape
        self.seed = seed
        self.served: list[Served] = []
        self.writers = {path: Writer(endpoint) for path, endpoint in ENDPOINTS.items()}
        self.ticker = Ticker(asyncio.get_running_loop())
        self._stall = stall

    def arrived(self, served: Served) -> int:
        """Write a request down; return its ID."""
        if self._stall is not None and not self.served:
            seconds = self._stall.seconds
            # It sleeps in the event loop: nothing is accepted, read or written meanwhile.
            self.ticker.at(served.arrived + self._stall.after_s, lambda: time.sleep(seconds))
        self.served.append(served)
        return len(self.served) - 1


class Connection(asyncio.Protocol):
    """One client, one request at a time."""

    def __init__(self, server: KnownServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._sock: socket.socket | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._now: Served | None = None
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)
        # The transport's own writes leave at the end of the loop's turn, too late for the log.
        fd = self._transport.get_extra_info("socket").fileno()
        self._sock = socket.socket(fileno=socket.dup(fd))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client has left."""
        self._closed = True
        if self._sock is not None:
            self._sock.close()
        if self._now is not None:
            self._now.left = True
            self._now.ended = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._close()

    def on_url(self, url: bytes) -> None:
        """Keep the path."""
        self._url = url

    def on_body(self, data: bytes) -> None:
        """Keep the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Begin on a request."""
        arrived = time.monotonic()
        content = b"".join(self._body)
        self._body.clear()
        path = self._url.decode()
        writer = self._server.writers.get(path)
        if writer is None:
            self._write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        body = _BODY.decode(content)
        todo = script(content, self._server.shape, body.tokens, self._server.seed)
        prompt = body.prompt_tokens
        cached = int(prompt * self._server.shape.cached)
        served = Served(arrived, [], 0.0, todo.end, False, prompt, cached, 0, path)
        self._now = served
        number = self._server.arrived(served)
        asked = body.stream_options is not None and body.stream_options.include_usage
        _Answer(self, served, writer, todo, body.stream, asked, number).begin()

    @property
    def ticker(self) -> Ticker:
        """The server's."""
        return self._server.ticker

    @property
    def closed(self) -> bool:
        """The client is gone."""
        return self._closed

    def write(self, data: bytes) -> float:
        """Write, and return the time right before."""
        at = time.monotonic()
        self._write(data)
        return at

    def _write(self, data: bytes) -> None:
        if self._closed or self._sock is None or self._transport is None:
            return
        sent = 0
        if self._transport.get_write_buffer_size() == 0:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sent = self._sock.send(data)
        if sent < len(data):
            self._transport.write(data[sent:])

    def over(self, at: float) -> None:
        """The request is done with."""
        if self._now is not None:
            self._now.ended = at
        self._now = None

    def reset(self) -> None:
        """End the connection by a reset."""
        self.over(time.monotonic())
        assert self._sock is not None
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def _close(self) -> None:
        self._closed = True
        if self._sock is not None:
            self._sock.close()
        if self._transport is not None:
            self._transport.abort()

    def cut(self) -> None:
        """End the connection in the midst of an answer, in an orderly way."""
        self.over(time.monotonic())
        self._close()


class _Answer:
    """One answer on its way."""

    def __init__(
        self,
        connection: Connection,
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


class Listener:
    """Accepts on the loopback. Port 0: any.

    uvloop's own servers accept one connection in each turn of the loop, which is too few when each
    turn sends many events.
    """

    def __init__(self, server: KnownServer, port: int) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._accepting: set[asyncio.Task[object]] = set()
        self._sock = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock.fileno(), self._accept)
        self.port: int = self._sock.getsockname()[1]

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(256):
                sock, _ = self._sock.accept()
                sock.setblocking(False)
                made = self._loop.connect_accepted_socket(lambda: Connection(self._server), sock)
                task = self._loop.create_task(made)
                self._accepting.add(task)
                task.add_done_callback(self._accepting.discard)

    def close(self) -> None:
        """Accept nothing more."""
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


async def serve(shape: Shape, seed: int, stall: Stall | None, port: int, log: Path | None) -> None:
    """Serve until a signal, then write the log."""
    server = KnownServer(shape, seed, stall)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listener = Listener(server, port)
    click.echo(listener.port)
    tune_collector()
    await stop.wait()
    listener.close()
    if log is not None:
        write_log(log, server.served)


@click.command(help=__doc__)
@click.option("--port", default=0, help="0: any free one; it is printed")
@click.option("--seed", default=1)
@click.option("--log", type=click.Path(path_type=Path), help="where to write what was done")
@click.option("--stall-after", type=float, help="stop wholly, so many s from the first request")
@click.option("--stall-for", type=float, default=2.0, show_default=True)
@click.option(
    "--shape",
    "settings",
    multiple=True,
    help="NAME=NUMBER, of " + ", ".join(field.name for field in fields(Shape)),
)
def main(
    port: int,
    seed: int,
    log: Path | None,
    stall_after: float | None,
    stall_for: float,
    settings: tuple[str, ...],
) -> None:
    """Command line."""
    pairs = dict(setting.split("=", 1) for setting in settings)
    shape = msgspec.convert(pairs, Shape, strict=False)
    stall = None if stall_after is None else Stall(stall_after, stall_for)
    run(serve(shape, seed, stall, port, log))


if __name__ == "__main__":
    main()
