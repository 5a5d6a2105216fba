"""Both ends of a link over loopback TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serving.catalogue.spec import EngineSpec
from serving.engine.echo import EchoEngine
from serving.engine.link_server import LinkServer
from serving.observability.logs import Log
from serving.router.answer import Answer
from serving.router.replica import ReplicaLink
from serving.wire.messages import CompletionCall, Sampling
from tests.conftest import Eventually

TOKEN = "sécret"


def completion(prompt: str = "one two three", **fields: Any) -> CompletionCall:
    values = {"request_id": "r1", "model": "m", "stream": True, "sampling": Sampling()}
    return CompletionCall(prompt=prompt, served_model="m", **{**values, **fields})


async def read(answer: Answer) -> bytes:
    """Everything up to the answer's end or failure."""
    data = b""
    async with asyncio.timeout(5):
        while answer.end is None and answer.failed is None:
            if not answer.ready:
                await answer.wait()
            data += answer.take()
    return data + answer.take()


class Pair:
    """One engine server and the links that a test opens to it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.links: list[ReplicaLink] = []
        self.changes = 0
        self.held: list[tuple[ReplicaLink, str, bool]] = []
        self.ended: list[str] = []
        self.engine = EchoEngine(
            EngineSpec(id="m", weights="w", context=1000, engine_args={"interval_s": 0.0})
        )
        self.server = self.new_server()
        self.port = 0

    def new_server(self) -> LinkServer:
        def on_call_end(outcome: str) -> None:
            self.ended.append(outcome)

        return LinkServer(
            self.engine,
            replica="m#1",
            model="m",
            token=TOKEN,
            log=self.log,
            on_call_end=on_call_end,
        )

    def link(self, token: str = TOKEN, router: str = "r", replica: str = "m#1") -> ReplicaLink:
        def changed() -> None:
            self.changes += 1

        link = ReplicaLink(
            replica,
            "127.0.0.1",
            self.port,
            router=router,
            token=token,
            log=self.log,
            on_change=changed,
            on_adapter=lambda *change: self.held.append(change),
        )
        self.links.append(link)
        return link


@pytest.fixture
async def pair(log: Log) -> AsyncIterator[Pair]:
    pair = Pair(log)
    pair.port = await pair.server.start("127.0.0.1")
    yield pair
    for link in pair.links:
        await link.close()
    await pair.server.close()


@pytest.fixture
async def link(pair: Pair, eventually: Eventually) -> ReplicaLink:
    link = pair.link()
    await eventually(lambda: link.up)
    return link


ENDLESS = "word " * 900
