"""A client of the harness that sends to a scripted server, and answers to give it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from loadtests.clock import Clock
from loadtests.load.planned import Planned
from loadtests.measure.record import Record
from loadtests.wire.client import Client
from loadtests.wire.service import Service
from tests.unit.loadtests.planned import planned, record
from tests.unit.loadtests.wire.servers import (
    END,
    LAST,
    STREAM,
    Answer,
    chunk,
    event,
    scripted,
)


class Sender:
    """Sends requests and waits for their ends."""

    def __init__(self, url: str, timeout_s: float = 5.0, service: Service | None = None) -> None:
        self.clock = Clock(time.monotonic())
        self.client = Client(service or Service(url), self.clock, timeout_s)

    async def send(self, of: Planned) -> tuple[Record, str]:
        ended: asyncio.Future[tuple[Record, str]] = asyncio.get_running_loop().create_future()
        content = self.client.prepare(of)
        self.client.send(
            of, record(of), content, lambda *end: ended.set_result(end), keep_text=True
        )
        async with asyncio.timeout(10):
            return await ended


@contextlib.asynccontextmanager
async def sending(url: str, **more: Any) -> AsyncIterator[Sender]:
    sender = Sender(url, **more)
    try:
        yield sender
    finally:
        sender.client.close()


async def one(answer: Answer, of: Planned | None = None, **more: Any) -> tuple[Record, str]:
    async with scripted(answer) as server, sending(server.url, **more) as sender:
        return await sender.send(of or planned())


async def stream(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM + chunk(event("a")))
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.write(chunk(event("b")) + chunk(LAST) + END)


def breaks(*pieces: bytes) -> Answer:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    return answer


A = STREAM + chunk(event("a"))
ERROR_EVENT = chunk(b'event: error\ndata: {"error": {"code": "engine_died"}}\n\n')


async def nothing(request: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(20)


async def half(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(A)
    await asyncio.sleep(20)
