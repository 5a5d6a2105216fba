"""The directory: a small Ray actor that knows where routers and engine replicas listen.

Replicas announce themselves every second; routers wait for changes. It is on no request's path
and holds nothing that is not announced again: when it dies, Ray restarts it, routers keep their
links, and a second later it is complete again.

During an upgrade replicas of both versions use the old one, so it never looks into an entry:
entries are JSON for it, which replicas of any version write and read (unknown fields are ignored,
new ones have defaults). Once all replicas are new, `renew` replaces it, as the death of the old one
would; replicas look for it by its name again.
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

from deployments.code import directory_code
from serving.wire.entry import Entry

NAMESPACE = "serving"
NAME = "serving-directory"
# Every head node has one of it.
HEAD_RESOURCE = "node:__internal_head__"
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
    """`Table` as a Ray actor. `code` is the digest of the code that it runs."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._table = Table()
        self._task: asyncio.Task[None] | None = None

    async def code(self) -> str:
        return self._code

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


def _open() -> Any:
    """A handle on the directory; the first caller creates it."""
    return DirectoryActor.options(  # type: ignore[attr-defined]
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        # On the head, beside Serve's controller: a node that drains does not end before its last
        # actor, and nothing would move this one.
        resources={HEAD_RESOURCE: 0.001},
    ).remote(directory_code())


class Directory:
    """The directory, as a replica reaches it. Make it where blocking is allowed.

    Each method raises a `RayError` if the directory is away; it is looked for at the next call.
    """

    def __init__(self) -> None:
        self._actor = _open()

    async def announce(self, entry: Entry) -> None:
        """List `entry`, for `EXPIRY_S` seconds."""
        await self._call("announce", entry.id, msgspec.json.encode(entry))

    async def withdraw(self, entry_id: str) -> None:
        """List an entry no longer."""
        await self._call("withdraw", entry_id)

    async def watch(
        self, epoch: str, version: int, timeout_s: float
    ) -> tuple[str, int, tuple[Entry, ...]]:
        """Its epoch, version and list, once they differ from what is given or after `timeout_s`."""
        epoch, version, entries = await self._call("watch", epoch, version, timeout_s)
        return epoch, version, _decode(entries)

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except ray.exceptions.ActorDiedError:
            # For good: it was replaced. Only found and not made, or a replica of an old version
            # could be the first to make it.
            with contextlib.suppress(ValueError):
                self._actor = await asyncio.to_thread(ray.get_actor, NAME, NAMESPACE)
            raise


def is_outdated() -> bool:
    """True if the directory runs other code than this process has. Blocks; not for an event loop.

    Raises:
        RayError: it does not answer.
    """
    try:
        code = _open().code
    except AttributeError:  # one of a version that did not say
        return True
    return bool(ray.get(code.remote(), timeout=ANSWER_S) != directory_code())


def renew() -> None:
    """Replace a directory that is outdated. Blocks; not for an event loop.

    Raises:
        TimeoutError: the new one does not answer.
    """
    deadline = time.monotonic() + ANSWER_S
    while True:
        with contextlib.suppress(ray.exceptions.ActorDiedError):  # its name is still taken
            if not is_outdated():
                return
            ray.kill(_open(), no_restart=True)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no new directory within {ANSWER_S:g} s")
        time.sleep(0.2)


def listed() -> tuple[Entry, ...]:
    """Everything that the directory lists now. Blocks; not for an event loop.

    Raises:
        RayError: it does not answer.
    """
    _, _, entries = ray.get(_open().watch.remote("", -1, 0.0), timeout=ANSWER_S)
    return _decode(entries)


def _decode(entries: Iterable[bytes]) -> tuple[Entry, ...]:
    """What the directory lists, read."""
    return tuple(map(msgspec.json.Decoder(Entry).decode, entries))


async def keep_announced(directory: Directory, entry: Entry) -> None:
    """Announce `entry` until cancelled; a directory that is away for a moment is no error."""
    while True:
        with contextlib.suppress(ray.exceptions.RayError):
            await directory.announce(entry)
        await asyncio.sleep(ANNOUNCE_INTERVAL_S)
