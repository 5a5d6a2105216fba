"""The known server: it answers each request as its script says and writes down what it did.

    python -m loadtests.known.server --port 9000 --log served.bin [--shape gap_s=0.02] [...]

It prints the port that it listens on. On SIGTERM or SIGINT it writes the log and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import click
import httptools
import msgspec

from loadtests.known.answer import Answer
from loadtests.known.dialects import ENDPOINTS, Body, Writer
from loadtests.known.log import Served, write_log
from loadtests.known.script import Shape, script
from loadtests.known.ticker import Ticker
from loadtests.loop import run, tune_collector

_BODY = msgspec.json.Decoder(Body)


def _page(status: str, content: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


# What routers and other clients ask before they send anything.
_PAGES = {
    "/health": _page("200 OK", b"{}"),
    "/v1/models": _page(
        "200 OK", b'{"object": "list", "data": [{"id": "known", "object": "model"}]}'
    ),
}
_NOT_FOUND = _page("404 Not Found", b"{}")


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
            self._write(_PAGES.get(path, _NOT_FOUND))
            return
        body = _BODY.decode(content)
        todo = script(content, self._server.shape, body.tokens, self._server.seed)
        prompt = body.prompt_tokens
        cached = int(prompt * self._server.shape.cached)
        served = Served(arrived, [], 0.0, todo.end, False, prompt, cached, 0, path)
        self._now = served
        number = self._server.arrived(served)
        asked = body.stream_options is not None and body.stream_options.include_usage
        Answer(self, served, writer, todo, body.stream, asked, number).begin()

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
