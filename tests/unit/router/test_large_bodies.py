"""Large bodies are read one at a time, and others get a turn between them."""

from __future__ import annotations

import asyncio

import pytest

from serving.api.structure import SMALL, BodyShape
from serving.errors import InvalidRequest
from serving.router.large_bodies import LargeBodies

LARGE = b" " * (SMALL + 1)


async def test_one_in_a_turn_of_the_event_loop() -> None:
    bodies = LargeBodies(BodyShape())
    turn, read_in, done = 0, [], False

    async def turns() -> None:
        nonlocal turn
        while not done:
            turn += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(turns())
    reads = [bodies.read(LARGE, lambda: read_in.append(turn)) for _ in range(8)]
    await asyncio.gather(*reads)
    done = True
    await other
    assert len(set(read_in)) == 8, f"read in {read_in}"


async def test_a_small_one_waits_for_none() -> None:
    bodies = LargeBodies(BodyShape())
    order: list[str] = []
    large = asyncio.create_task(bodies.read(LARGE, lambda: order.append("large")))
    await asyncio.sleep(0)
    await bodies.read(b"", lambda: order.append("small"))
    await large
    assert order == ["small", "large"]


async def test_one_that_is_refused_or_given_up_lets_the_next_one_in() -> None:
    bodies = LargeBodies(BodyShape(brackets=10))
    with pytest.raises(InvalidRequest, match="opening brackets"):
        await bodies.read(b"[" * SMALL + b"[", lambda: None)
    waits = asyncio.create_task(bodies.read(LARGE, lambda: None))
    await asyncio.sleep(0)
    waits.cancel()
    assert await bodies.read(LARGE, lambda: "read") == "read"
