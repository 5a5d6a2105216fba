"""Whose turn is next at a provider, and who waits in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.interface import Tally
from serving.errors import Overloaded
from serving.upstream.slots import Slots
from serving.wire.messages import Standing
from tests.conftest import Eventually

ACME, OTHER = Standing("acme"), Standing("other")


@asynccontextmanager
async def turn(slots: Slots, standing: Standing = ACME, prompt: int = 1) -> AsyncIterator[Tally]:
    tally = Tally()
    async with slots.turn(standing, prompt, tally):
        yield tally


async def test_one_account_is_served_in_order(eventually: Eventually) -> None:
    slots = Slots(1, "acme")
    order: list[int] = []

    async def use(number: int) -> None:
        async with turn(slots):
            order.append(number)
            await asyncio.sleep(0)

    async with turn(slots):
        waiting = [asyncio.create_task(use(0))]
        await eventually(lambda: slots.waiting == 1)
    await asyncio.gather(*waiting, use(1))
    assert order == [0, 1]
    assert (slots.taken, slots.waiting) == (0, 0)


async def order_of(asked: list[tuple[Standing, int]]) -> list[str]:
    """Who gets turns, one after the other, of requests that come while one runs. Each says how many
    tokens its answer has."""
    slots, order = Slots(32, "p"), list[str]()
    slots.taken = 31  # by requests that go on all the time

    async def use(standing: Standing, tokens: int) -> None:
        async with turn(slots, standing) as tally:
            order.append(standing.owner + "-batch" * standing.batch)
            tally.completion_tokens = tokens
            await asyncio.sleep(0)

    async with turn(slots, Standing("first")):
        tasks = [asyncio.create_task(use(*one)) for one in asked]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return order


async def test_a_flood_of_one_account_does_not_hold_up_another() -> None:
    order = await order_of([(ACME, 10)] * 9 + [(OTHER, 10)])
    assert order.index("other") <= 1


async def test_turns_go_by_what_answers_have_taken() -> None:
    first = (await order_of([(ACME, 30), (OTHER, 10)] * 8))[:8]
    assert first.count("other") > first.count("acme"), "three of its answers are one of the other's"


async def test_batch_requests_come_last() -> None:
    batch = Standing("other", 1.0, True)
    order = await order_of([(batch, 1), (ACME, 1), (batch, 1), (ACME, 1)])
    assert order == ["acme", "acme", "other-batch", "other-batch"]


async def test_as_many_may_wait_as_may_run(eventually: Eventually) -> None:
    slots = Slots(2, "acme")

    async def use() -> None:
        async with turn(slots):
            pass

    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(turn(slots))
        waiting = [asyncio.create_task(use()) for _ in range(2)]
        await eventually(lambda: slots.waiting == 2)
        with pytest.raises(Overloaded):
            await use()
    await asyncio.gather(*waiting)


async def test_who_has_most_that_wait_makes_room_for_another(eventually: Eventually) -> None:
    slots = Slots(2, "p")

    async def use(standing: Standing) -> None:
        async with turn(slots, standing):
            pass

    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(turn(slots))
        flood = [asyncio.create_task(use(ACME)) for _ in range(2)]
        await eventually(lambda: slots.waiting == 2)
        other = asyncio.create_task(use(OTHER))
        await eventually(lambda: flood[1].done())
        assert slots.waiting == 2
    with pytest.raises(Overloaded):
        await flood[1]
    await asyncio.gather(flood[0], other)


async def test_waiting_ends() -> None:
    slots = Slots(1, "acme", wait_s=0.01)
    async with turn(slots):
        with pytest.raises(Overloaded, match="provider 'acme'"):
            async with turn(slots):
                pass
    async with turn(slots):
        assert slots.taken == 1
        assert slots.waiting == 0


async def test_a_request_says_how_long_it_waited() -> None:
    slots = Slots(1, "p")

    async def use() -> float | None:
        async with turn(slots) as tally:
            return tally.queue_s

    async with turn(slots) as tally:
        assert tally.queue_s == 0.0 or tally.queue_s
        waiting = asyncio.create_task(use())
        await asyncio.sleep(0.02)
    assert (await waiting or 0) >= 0.015


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["use", "cancel", "late", "free"])),
        max_size=40,
    )
)
def test_no_turn_is_lost_or_given_twice(steps: list[tuple[str, str]]) -> None:
    """Requests come, are cancelled (some in the moment of their turn) and end, in any order."""

    async def run() -> None:
        slots = Slots(2, "p")
        ends: list[asyncio.Event] = []
        tasks: list[asyncio.Task[None]] = []
        running = 0

        async def use(owner: str) -> None:
            nonlocal running
            async with turn(slots, Standing(owner)):
                running += 1
                assert running <= 2
                try:
                    end = asyncio.Event()
                    ends.append(end)
                    await end.wait()
                finally:
                    running -= 1

        for owner, what in steps:
            if what == "use":
                tasks.append(asyncio.create_task(use(owner)))
            elif what == "cancel" and tasks:
                tasks.pop(0).cancel()
            elif ends:
                ends.pop().set()
                if what == "late" and tasks:
                    await asyncio.sleep(0)
                    tasks.pop().cancel()
                    continue
            await asyncio.sleep(0)
            assert slots.taken <= 2
        for _ in range(100):
            for end in ends:
                end.set()
            await asyncio.sleep(0)
        assert (slots.taken, slots.waiting, running) == (0, 0, 0)

    asyncio.run(run())
