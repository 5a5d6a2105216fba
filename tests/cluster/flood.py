"""One account's requests while another floods the engine: how long each waited for its first token.

It talks to an engine server as a router does, so that nothing but the engine is measured.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.wire.messages import Standing
from tests.cluster.engine_server import EngineLink, http_call

MODEL = "tiny-llama"
STORY = "Once upon a time there was a river and the people of the water. "


@dataclass(frozen=True)
class Load:
    """`count` requests of one owner: prompts of so many sentences, completions of `tokens`.

    At most `at_once` are there at a time, and each comes `gap_s` seconds after the one before.
    """

    owner: str
    count: int
    tokens: int
    sentences: int = 1
    at_once: int = 10**6
    gap_s: float = 0.0


@dataclass(frozen=True)
class Timed:
    """One request: seconds to its first token and to its end, and since when, `time.monotonic`."""

    began: float
    ttft: float
    total: float


async def ask(link: EngineLink, load: Load, number: int, **fields: Any) -> Timed:
    """Send one streamed request and time it."""
    call, body = http_call(
        "/v1/completions",
        MODEL,
        prompt=f"{load.owner} {number}: " + STORY * load.sentences,
        max_tokens=load.tokens,
        ignore_eos=True,
        stream=True,
        **fields,
    )
    call = msgspec.structs.replace(call, standing=Standing(load.owner))
    began = time.monotonic()
    answer = link.open(call, body)
    first = 0.0
    try:
        while answer.end is None:
            await answer.wait()
            if answer.failed is not None:
                raise answer.failed
            if answer.take() and not first:
                first = time.monotonic()
    finally:
        answer.abandon()
    return Timed(began, first - began, time.monotonic() - began)


async def run(link: EngineLink, load: Load) -> list[Timed]:
    """Send them all."""
    room = asyncio.Semaphore(load.at_once)

    async def one(number: int) -> Timed:
        try:
            return await ask(link, load, number)
        finally:
            room.release()

    tasks = []
    for number in range(load.count):
        await room.acquire()
        tasks.append(asyncio.create_task(one(number)))
        if load.gap_s:
            await asyncio.sleep(load.gap_s)
    return list(await asyncio.gather(*tasks))


def p99(times: Sequence[Timed]) -> float:
    """The 99th percentile of the times to the first token, in seconds: the smallest value that 99 %
    are not above."""
    values = sorted(each.ttft for each in times)
    return values[math.ceil(0.99 * len(values)) - 1]
