"""The directory: a small Ray actor that knows where routers and engine replicas listen.

Replicas announce themselves every second; routers wait for changes. It is on no request's path
and holds nothing that is not announced again: when it dies, Ray restarts it, routers keep their
links, and a second later it is complete again.

It outlives upgrades, so it never looks into an entry: entries are JSON for it, which replicas of
any version write and read (unknown fields are ignored, new ones have defaults).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec
import ray

from serving.wire.entry import Entry

NAMESPACE = "serving"
NAME = "serving-directory"
ANNOUNCE_INTERVAL_S = 1.0
EXPIRY_S = 5.0
ANSWER_S = 30.0


class Table:
    """The directory's content. `version` changes with every change of the list."""

    def __init__(self) -> None:
        self.epoch = uuid.uuid4().hex
        self.version = 0
        self._entries: dict[str, tuple[bytes, float]] = {}
        self._changed = asyncio.Event()

    def announce(self, entry_id: str, entry: bytes, now: float) -> None:
        """Keep an entry, as of `now` in seconds."""
        old = self._entries.get(entry_id)
        self._entries[entry_id] = (entry, now)
        if old is None or old[0] != entry:
            self._change()

    def withdraw(self, entry_id: str) -> None:
        if self._entries.pop(entry_id, None) is not None:
            self._change()

    def expire(self, now: float) -> None:
        """Remove entries that were not announced for `EXPIRY_S` seconds."""
        for entry_id, (_, seen) in list(self._entries.items()):
            if now - seen > EXPIRY_S:
                self.withdraw(entry_id)

    def entries(self) -> tuple[bytes, ...]:
        return tuple(entry for entry, _ in self._entries.values())

    async def wait(self, epoch: str, version: int, timeout_s: float) -> None:
        """Return when the list differs from the one the caller has, or after `timeout_s`."""
        if (epoch, version) == (self.epoch, self.version):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()

    def _change(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class DirectoryActor:
    """`Table` as a Ray actor."""

    def __init__(self) -> None:
        self._table = Table()
        self._task: asyncio.Task[None] | None = None

    async def announce(self, entry_id: str, entry: bytes) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._expire())
        self._table.announce(entry_id, entry, time.monotonic())

    async def withdraw(self, entry_id: str) -> None:
        self._table.withdraw(entry_id)

    async def watch(
        self, epoch: str, version: int, timeout_s: float
    ) -> tuple[str, int, tuple[bytes, ...]]:
        """The list, once it differs from (`epoch`, `version`) or after `timeout_s`."""
        await self._table.wait(epoch, version, timeout_s)
        return self._table.epoch, self._table.version, self._table.entries()

    async def _expire(self) -> None:
        while True:
            due = time.monotonic() + ANNOUNCE_INTERVAL_S
            await asyncio.sleep(ANNOUNCE_INTERVAL_S)
            # Time in which this process itself did not run does not count: the announcements of
            # that time are still waiting to be read.
            self._table.expire(min(time.monotonic(), due))


def open_directory() -> Any:
    """A handle on the directory; the first caller creates it."""
    return DirectoryActor.options(  # type: ignore[attr-defined]
        name=NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote()


def listed() -> tuple[Entry, ...]:
    """Everything that the directory lists now. Blocks; not for an event loop.

    Raises:
        RayError: it does not answer.
    """
    _, _, entries = ray.get(open_directory().watch.remote("", -1, 0.0), timeout=ANSWER_S)
    return decode(entries)


def decode(entries: Iterable[bytes]) -> tuple[Entry, ...]:
    """What the directory lists, read."""
    return tuple(map(msgspec.json.Decoder(Entry).decode, entries))


async def keep_announced(directory: Any, entry: Entry) -> None:
    """Announce `entry` until cancelled; a directory that is away for a moment is no error."""
    encoded = msgspec.json.encode(entry)
    while True:
        with contextlib.suppress(ray.exceptions.RayError):
            await directory.announce.remote(entry.id, encoded)
        await asyncio.sleep(ANNOUNCE_INTERVAL_S)
