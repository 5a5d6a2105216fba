from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from serving.errors import Overloaded
from serving.upstream.slots import Slots
from tests.conftest import Eventually


async def test_first_come_first_served(eventually: Eventually) -> None:
    slots = Slots(1, "acme")
    order: list[int] = []

    async def use(number: int) -> None:
        async with slots.turn():
            order.append(number)
            await asyncio.sleep(0)

    async with slots.turn():
        waiting = [asyncio.create_task(use(0))]
        await eventually(lambda: slots.waiting == 1)
    await asyncio.gather(*waiting, use(1))
    assert order == [0, 1]
    assert (slots.taken, slots.waiting) == (0, 0)


async def test_as_many_may_wait_as_may_run(eventually: Eventually) -> None:
    slots = Slots(2, "acme")

    async def use() -> None:
        async with slots.turn():
            pass

    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(slots.turn())
        waiting = [asyncio.create_task(use()) for _ in range(2)]
        await eventually(lambda: slots.waiting == 2)
        with pytest.raises(Overloaded):
            await use()
    await asyncio.gather(*waiting)


async def test_waiting_ends() -> None:
    slots = Slots(1, "acme", wait_s=0.01)
    async with slots.turn():
        with pytest.raises(Overloaded, match="provider 'acme'"):
            async with slots.turn():
                pass
    async with slots.turn():
        assert slots.taken == 1


async def test_who_leaves_while_waiting_takes_nothing(eventually: Eventually) -> None:
    slots = Slots(1, "acme")

    async def use() -> None:
        async with slots.turn():
            pass

    async with slots.turn():
        task = asyncio.create_task(use())
        await eventually(lambda: slots.waiting == 1)
        task.cancel()
        await asyncio.wait([task])
    assert (slots.taken, slots.waiting) == (0, 0)
    await use()
