from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from serving.engine.adapters import AdapterPool
from serving.errors import Overloaded
from serving.wire.messages import AdapterRef
from tests.conftest import Eventually


def ref(name: str, path: str = "/w") -> AdapterRef:
    return AdapterRef(name, path)


class Slots:
    """An engine's adapter slots, which notices when they overflow."""

    def __init__(self, capacity: int, wait_s: float = 5.0) -> None:
        self.capacity = capacity
        self.filled: list[AdapterRef] = []
        self.loads: Counter[str] = Counter()
        self.broken: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.using: Counter[AdapterRef] = Counter()
        self.pool = AdapterPool(capacity, self._load, self._unload, wait_s=wait_s)

    async def _load(self, ref: AdapterRef) -> str:
        self.loads[ref.id] += 1
        await asyncio.sleep(0)
        await self.gate.wait()
        if ref.id in self.broken:
            raise ValueError(f"{ref.id} is broken")
        self.filled.append(ref)
        assert len(self.filled) <= self.capacity, "the spare slot was filled: rows would leak"
        return f"{ref.id}@{ref.path}"

    async def _unload(self, ref: AdapterRef, loaded: str) -> None:
        assert loaded == f"{ref.id}@{ref.path}"
        assert not self.using[ref], "an adapter in use was evicted"
        await asyncio.sleep(0)
        self.filled.remove(ref)

    async def use(self, ref: AdapterRef, seconds: float = 0.0) -> str:
        async with self.pool.hold(ref) as loaded:
            self.using[ref] += 1
            assert ref in self.filled
            try:
                await asyncio.sleep(seconds)
            finally:
                self.using[ref] -= 1
            return loaded


async def test_capacity_is_never_exceeded_and_everyone_is_served() -> None:
    slots = Slots(3)
    rng = random.Random(7)
    uses = [slots.use(ref(f"a{rng.randrange(9)}"), rng.random() / 200) for _ in range(300)]
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*uses)
    assert len(answers) == 300
    assert len(slots.filled) == len(slots.pool.held) == 3


async def test_the_least_recently_used_goes_first() -> None:
    slots = Slots(2)
    for name in "abac":
        await slots.use(ref(name))
    assert slots.pool.held == ("a", "c")


async def test_one_in_use_is_not_evicted() -> None:
    slots = Slots(2)
    async with slots.pool.hold(ref("old")):
        for name in "abc":
            await slots.use(ref(name))
        assert slots.pool.held == ("c", "old") or slots.pool.held == ("old", "c")


async def test_loads_of_one_adapter_coalesce() -> None:
    slots = Slots(2)
    slots.gate.clear()
    uses = [asyncio.create_task(slots.use(ref("a"))) for _ in range(10)]
    await asyncio.sleep(0)
    slots.gate.set()
    assert await asyncio.gather(*uses) == ["a@/w"] * 10
    assert slots.loads == {"a": 1}


async def test_a_failed_load_harms_nobody() -> None:
    slots = Slots(1)
    slots.broken.add("bad")
    results = await asyncio.gather(
        slots.use(ref("bad")), slots.use(ref("bad")), slots.use(ref("good")), return_exceptions=True
    )
    assert [type(result) for result in results] == [ValueError, ValueError, str]
    assert slots.pool.held == ("good",)
    slots.broken.clear()
    assert await slots.use(ref("bad")) == "bad@/w"


async def test_a_waiter_that_leaves_abandons_no_load(eventually: Eventually) -> None:
    slots = Slots(1)
    slots.gate.clear()
    waiter = asyncio.create_task(slots.use(ref("a")))
    await eventually(lambda: slots.loads["a"])
    waiter.cancel()
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    slots.gate.set()
    await eventually(lambda: slots.pool.held == ("a",))
    assert await slots.use(ref("b")) == "b@/w"
    assert slots.filled == [ref("b")]


async def test_two_that_want_the_last_slot_do_not_chase_each_other() -> None:
    slots = Slots(1)
    async with asyncio.timeout(5):
        await asyncio.gather(*(slots.use(ref(name), 0.005) for name in "abc"))
    assert slots.loads == {"a": 1, "b": 1, "c": 1}


async def test_a_new_path_replaces_the_adapter(eventually: Eventually) -> None:
    slots = Slots(2)
    async with slots.pool.hold(ref("a", "/v1")) as old:
        newer = asyncio.create_task(slots.use(ref("a", "/v2")))
        await eventually(lambda: slots.pool._loads)  # the newer one waits for the older's user
        assert old == "a@/v1"
        assert slots.filled == [ref("a", "/v1")]
    assert await newer == "a@/v2"
    assert slots.filled == [ref("a", "/v2")]


async def test_overloaded_after_the_wait_and_usable_afterwards() -> None:
    slots = Slots(1, wait_s=0.02)
    async with slots.pool.hold(ref("a")):
        with pytest.raises(Overloaded, match="all 1 adapter slots"):
            await slots.use(ref("b"))
    assert await slots.use(ref("b")) == "b@/w"
