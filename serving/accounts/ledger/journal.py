"""The journal of one router: entries are on its disk before the last byte of their answers leaves.

A thread writes. While it waits for the disk, entries gather, and go out together in the next write:
under load one `fdatasync` serves many requests, without anything having waited for company.

Each process has a journal of its own, a folder of segments that it holds a lock on. Whoever finds a
journal that nobody holds takes it over and ships it (`shipper.py`): so the entries of a router that
was killed reach the store by way of any other on the same disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue

from serving.accounts.ledger import segment
from serving.store.entry import Entry

SEGMENT_BYTES = 16 * 1024 * 1024
LOCK = "lock"
# How often a write is tried again that failed, in seconds.
AGAIN_S = 1.0

_Waiting = tuple[bytes, "asyncio.Future[None] | None"]


class JournalFull(Exception):
    """The disk does not take entries, and no more of them are kept in memory."""


class Journal:
    """Takes entries in the event loop that makes it, and writes them in a thread.

    Args:
        root: the folder of all journals of this disk.
        keep: how many entries are kept in memory while the disk takes none.
        on_change: called in the loop with the failure when the disk begins to refuse, and with
            None when it takes entries again.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep: int = 100_000,
        segment_bytes: int = SEGMENT_BYTES,
        on_change: Callable[[OSError | None], None] = lambda error: None,
    ) -> None:
        self.name = uuid.uuid4().hex
        self.folder = root / self.name
        self._keep = keep
        self._segment_bytes = segment_bytes
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._number = 0
        self._refused = False  # the last write failed
        self._written = 0  # only the thread sets it
        self._closing = threading.Event()
        self._lock = self._make_folder(root)
        self._descriptor = self._open(1)
        self._thread = threading.Thread(target=self._write_all, name="ledger", daemon=True)
        self._thread.start()

    @property
    def refused(self) -> bool:
        """True while the disk takes no entries."""
        return self._refused

    @property
    def unwritten(self) -> int:
        """How many entries are in memory alone."""
        return self._number - self._written

    async def append(self, entry: Entry) -> None:
        """Write an entry; returns when it is on the disk, or kept until the disk takes it.

        Raises:
            JournalFull: too many are kept already. This one is lost.
        """
        if self.unwritten >= self._keep:
            raise JournalFull(f"{self.unwritten} entries wait for the disk")
        self._number += 1
        written = None if self._refused else self._loop.create_future()
        self._queue.put((segment.record(self._number, entry), written))
        if written is not None:
            await asyncio.shield(written)

    async def close(self) -> None:
        """Write what is left and let go of the journal. What the disk does not take is lost."""
        self._closing.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        os.close(self._descriptor)
        os.close(self._lock)

    # in the thread

    def _write_all(self) -> None:
        while (first := self._queue.get()) is not None:
            self._write([first, *self._come_since()])

    def _write(self, batch: list[_Waiting]) -> None:
        """Write a batch, however long that takes."""
        waiting, last = deque(batch), False
        while waiting:
            try:
                segment.write(self._descriptor, [data for data, _ in waiting])
            except OSError as error:
                # Nobody waits for a disk that refuses.
                self._tell(waiting, error)
                waiting = deque((data, None) for data, _ in waiting)
                if last:
                    return
                last = self._closing.wait(AGAIN_S)
                waiting += self._come_since()
                continue
            self._written += len(waiting)  # before anybody is told
            self._tell(waiting, None)
            waiting.clear()
            self._end_segment()

    def _come_since(self) -> list[_Waiting]:
        """What has been queued meanwhile, without the word to stop."""
        found: list[_Waiting] = []
        with contextlib.suppress(Empty):
            while (item := self._queue.get_nowait()) is not None:
                found.append(item)
            self._queue.put(None)
        return found

    def _tell(self, waiting: Iterable[_Waiting], error: OSError | None) -> None:
        futures = [future for _, future in waiting if future is not None]
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._told, futures, error)

    def _make_folder(self, root: Path) -> int:
        """Make the folder and hold it, before anybody can see it and think that nobody does."""
        hidden = root / f".{self.name}"
        hidden.mkdir(parents=True)
        held = lock(hidden)
        assert held is not None
        hidden.rename(self.folder)
        _sync(root)
        return held

    def _open(self, number: int) -> int:
        path = self.folder / f"{number:016d}{segment.SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        _sync(self.folder)
        return descriptor

    def _end_segment(self) -> None:
        """Go on in a new segment when this one is long, so that it can be removed once shipped."""
        old = self._descriptor
        if os.lseek(old, 0, os.SEEK_END) < self._segment_bytes:
            return
        newest = segment.segments(self.folder)[-1]
        try:
            self._descriptor = self._open(int(newest.name.removesuffix(segment.SUFFIX)) + 1)
        except OSError:
            return  # the old one will do
        os.close(old)

    # in the loop

    def _told(self, futures: list[asyncio.Future[None]], error: OSError | None) -> None:
        if (error is not None) != self._refused:
            self._refused = error is not None
            self._on_change(error)
        for future in futures:
            if not future.done():
                future.set_result(None)


def lock(folder: Path) -> int | None:
    """Take a journal over: the descriptor that holds it, or None if a process that lives does."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, so that they are there after a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
