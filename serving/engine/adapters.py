"""Which LoRA adapters an engine holds: loaded on demand, bounded, least recently used out first.

The bound is a safety property, not only a memory one. vLLM's CPU kernels index slot -1 for a
request without an adapter, which is the *last* slot: when that one is filled, base-model
requests that share a batch with an adapter's come back with another adapter's tokens. So the
engine gets one slot more than this pool ever fills (`Lora.slots`), and eviction happens here,
before the engine would need that slot. GPU kernels skip -1 and merely waste the slot.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from serving.errors import Overloaded
from serving.wire.messages import AdapterRef

Loaded = TypeVar("Loaded")


@dataclass
class _Entry(Generic[Loaded]):
    ref: AdapterRef
    loaded: Loaded
    holders: int = 0


class AdapterPool(Generic[Loaded]):
    """At most `capacity` adapters, each held by the requests that use it.

    Args:
        capacity: adapters held at once; one that is in use is never evicted.
        load: brings an adapter into the engine; its exceptions go to the requests that asked.
        unload: takes an adapter out of the engine.
        wait_s: how long a request waits for a slot while all are in use, in seconds.
    """

    def __init__(
        self,
        capacity: int,
        load: Callable[[AdapterRef], Awaitable[Loaded]],
        unload: Callable[[AdapterRef, Loaded], Awaitable[None]],
        *,
        wait_s: float = 30.0,
    ) -> None:
        self._capacity = capacity
        self._load = load
        self._unload = unload
        self._wait_s = wait_s
        self._entries: OrderedDict[str, _Entry[Loaded]] = OrderedDict()
        self._loads: dict[AdapterRef, asyncio.Task[None]] = {}
        # How many requests have asked for an adapter and do not hold it yet. An adapter that was
        # just loaded for them must not be evicted before they wake up, or two adapters would evict
        # each other forever.
        self._wanted: Counter[AdapterRef] = Counter()
        self._one_load = asyncio.Lock()
        self._idle = asyncio.Event()

    @property
    def held(self) -> tuple[str, ...]:
        """IDs of the adapters in memory, least recently used first."""
        return tuple(self._entries)

    @asynccontextmanager
    async def hold(self, ref: AdapterRef) -> AsyncIterator[Loaded]:
        """Load the adapter if it is not loaded, and keep it until the block ends.

        Raises:
            Overloaded: every slot was in use for `wait_s`.
        """
        self._wanted[ref] += 1
        try:
            while (entry := self._entries.get(ref.id)) is None or entry.ref != ref:
                await self._loaded(ref)
            entry.holders += 1
        finally:
            self._wanted[ref] -= 1
            if not self._wanted[ref]:
                del self._wanted[ref]
                self._idle.set()
        self._entries.move_to_end(ref.id)
        try:
            yield entry.loaded
        finally:
            entry.holders -= 1
            if not entry.holders:
                self._idle.set()

    async def _loaded(self, ref: AdapterRef) -> None:
        """Load once for all requests that wait. Shielded: a request that is cancelled must not stop
        a load halfway, which would leave a slot in use that nobody counts."""
        task = self._loads.get(ref)
        if task is None:
            task = asyncio.create_task(self._make_room_and_load(ref))
            self._loads[ref] = task
            task.add_done_callback(lambda done: self._finished(ref, done))
        await asyncio.shield(task)

    def _finished(self, ref: AdapterRef, task: asyncio.Task[None]) -> None:
        del self._loads[ref]
        if not task.cancelled():
            task.exception()  # marks it as seen, even if every waiting request was cancelled

    async def _make_room_and_load(self, ref: AdapterRef) -> None:
        deadline = asyncio.get_running_loop().time() + self._wait_s
        async with self._turn(deadline):
            if (old := self._entries.get(ref.id)) is not None:
                if old.ref == ref:
                    return
                await self._evict_when_idle(lambda entry: entry.ref.id == ref.id, deadline)
            if len(self._entries) >= self._capacity:
                await self._evict_when_idle(lambda entry: True, deadline)
            self._entries[ref.id] = _Entry(ref, await self._load(ref))

    @asynccontextmanager
    async def _turn(self, deadline: float) -> AsyncIterator[None]:
        """One load at a time; waiting for the turn counts as waiting for a slot."""
        async with self._in_time(deadline):
            await self._one_load.acquire()
        try:
            yield
        finally:
            self._one_load.release()

    async def _evict_when_idle(
        self, may_go: Callable[[_Entry[Loaded]], bool], deadline: float
    ) -> None:
        while True:
            for entry in self._entries.values():
                if not entry.holders and not self._wanted[entry.ref] and may_go(entry):
                    await self._evict(entry)
                    return
            self._idle.clear()
            async with self._in_time(deadline):
                await self._idle.wait()

    async def _evict(self, entry: _Entry[Loaded]) -> None:
        """Unload an adapter. Its entry goes first, so that no request takes hold of it, and comes
        back if unloading fails."""
        del self._entries[entry.ref.id]
        try:
            await self._unload(entry.ref, entry.loaded)
        except BaseException:
            self._entries[entry.ref.id] = entry
            raise

    @asynccontextmanager
    async def _in_time(self, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            raise Overloaded(
                f"all {self._capacity} adapter slots of this replica are in use; "
                "raise lora.max_loaded of the base model or add a replica",
                retry_after_s=5,
            ) from None
