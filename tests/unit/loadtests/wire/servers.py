"""Servers that say exactly what a test wants, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Scripted:
    """Reads requests and hands each one to `answer`."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                request = head + await reader.readexactly(size)
                self.requests.append(request)
                await self._answer(request, writer)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def scripted(
    answer: Answer, host: str = "127.0.0.1", **more: object
) -> AsyncIterator[Scripted]:
    server = Scripted(answer)
    listener = await asyncio.start_server(server.talk, host, 0, **more)  # type: ignore[arg-type]
    port = listener.sockets[0].getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    server.url = f"{'https' if 'ssl' in more else 'http'}://{name}:{port}"
    try:
        yield server
    finally:
        listener.close()


def whole(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"x-request-id: r-1\r\n\r\n" + body


STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\nX-Request-ID: r-1\r\n\r\n"
)
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text: str, reason: str | None = None, usage: str = "null") -> bytes:
    quoted = "null" if reason is None else f'"{reason}"'
    said = (
        f'{{"completion": {{"text": "{text}", "finish_reason": {quoted}}}, "token_usage": {usage}}}'
    )
    return f"data: {said}\n\n".encode()


LAST = event("", "stop", '{"prompt": 3, "completion": 2, "total": 5}')
