"""The ledger of one router: takes the entry of each admitted request, and sees to it that the store
gets it.

`JournalLedger` writes to this machine's disk first, which takes a few milliseconds and needs nobody
else; the store may be away for as long as the disk has room. `StoreLedger` waits for the store
itself: for routers whose disk goes with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from pathlib import Path
from typing import Protocol

from serving.accounts.ledger.journal import Journal, JournalFull
from serving.accounts.ledger.shipper import BATCH, Shipper, Sink
from serving.errors import LedgerUnavailable
from serving.observability.logs import Log, Seldom
from serving.observability.router_metrics import LedgerMetrics
from serving.observability.tasks import background, end
from serving.store.engine import StoreAway
from serving.store.entry import Entry, Numbered
from serving.store.ledger import OutOfOrder

# How long a router that ends goes on shipping, in seconds. What is left stays on the disk.
LAST_S = 5.0
# How long an answer waits for the store where that is the ledger, in seconds.
STORE_WAIT_S = 5.0
# Entries that a router keeps while its disk, or the store that it writes to, takes none.
KEEP = 100_000


class Ledger(Protocol):
    """What a router needs of it. `start` comes first, in the router's event loop."""

    async def start(self) -> None: ...

    def check(self) -> None:
        """Called before a request is admitted.

        Raises:
            LedgerUnavailable: it could not be accounted for, and must not run then.
        """

    async def add(self, entry: Entry) -> None:
        """Keep an entry. Returns when it is durable, or, where that cannot be, at once."""

    async def close(self) -> None: ...


class JournalLedger:
    """Entries go to a journal on this disk, and from there to the store.

    Args:
        root: the folder of all journals of this disk.
        refuses: refuse requests while the disk takes no entries. Otherwise they run, and their
            entries are in memory alone until it does.
    """

    def __init__(
        self, root: Path, sink: Sink, *, refuses: bool, metrics: LedgerMetrics, log: Log
    ) -> None:
        self._root = root
        self._sink = sink
        self._refuses = refuses
        self._metrics = metrics
        self._log = log
        self._seldom = Seldom(10.0)
        self._journal: Journal | None = None
        self._shipper: Shipper | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin a journal.

        Raises:
            OSError: the folder cannot be written to.
        """
        journal = Journal(self._root, keep=KEEP, on_change=self._disk_changed)
        shipper = Shipper(self._root, journal.name, self._sink, self._log)
        self._journal, self._shipper = journal, shipper
        self._task = background(shipper.run(), "ship_ledger", self._log)
        self._metrics.watch(
            unwritten=lambda: journal.unwritten,
            unshipped=shipper.backlog,
            store_away_s=lambda: shipper.away_s,
        )

    def check(self) -> None:
        """See `Ledger.check`."""
        assert self._journal is not None
        if self._journal.refused and (self._refuses or self._journal.unwritten >= KEEP):
            raise LedgerUnavailable("the disk of this router takes no entries of usage")

    async def add(self, entry: Entry) -> None:
        """See `Ledger.add`."""
        assert self._journal is not None
        try:
            with self._metrics.adding():
                await self._journal.append(entry)
        except JournalFull as error:
            _lose(entry, str(error), self._metrics, self._log, self._seldom)

    async def close(self) -> None:
        """Write and ship what is left, as far as that goes within a few seconds."""
        if self._journal is None or self._shipper is None or self._task is None:
            return
        await end(self._task)
        await self._journal.close()
        with contextlib.suppress(StoreAway, TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._shipper.ship_all()
        self._shipper.close()

    def _disk_changed(self, error: OSError | None) -> None:
        if error is None:
            self._log.info("ledger_disk_takes_entries_again")
        else:
            self._log.error("ledger_disk_refuses", reason=str(error), folder=str(self._root))


class StoreLedger:
    """Entries go to the store at once, those that come together in one transaction.

    Args:
        refuses: refuse requests while the store takes no entries. Otherwise they run, and their
            entries are in memory alone until it does.
    """

    def __init__(self, sink: Sink, *, refuses: bool, metrics: LedgerMetrics, log: Log) -> None:
        self._sink = sink
        self._refuses = refuses
        self._metrics = metrics
        self._log = log
        self._seldom = Seldom(10.0)
        self._name = uuid.uuid4().hex
        self._waiting: list[Numbered] = []
        self._written = asyncio.Condition()
        self._come = asyncio.Event()
        self._number = self._done = 0
        self._away = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to write."""
        self._task = background(self._run(), "write_ledger", self._log)
        self._metrics.watch(
            unwritten=lambda: len(self._waiting), unshipped=lambda: 0, store_away_s=lambda: 0.0
        )

    def check(self) -> None:
        """See `Ledger.check`."""
        if self._away and (self._refuses or len(self._waiting) >= KEEP):
            raise LedgerUnavailable("the store takes no entries of usage")

    async def add(self, entry: Entry) -> None:
        """See `Ledger.add`. Waits for `STORE_WAIT_S` at most."""
        if len(self._waiting) >= KEEP:
            _lose(entry, "the store is away", self._metrics, self._log, self._seldom)
            return
        self._number = number = self._number + 1
        self._waiting.append((number, entry))
        self._come.set()
        if self._away:
            return
        with self._metrics.adding(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STORE_WAIT_S), self._written:
                await self._written.wait_for(lambda: self._done >= number or self._away)

    async def close(self) -> None:
        """Write what is left, as far as that goes within a few seconds."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S), self._written:
                await self._written.wait_for(lambda: not self._waiting)
        await end(self._task)
        if self._waiting:
            self._log.error("ledger_entries_lost", entries=len(self._waiting))
            self._metrics.lost.inc(len(self._waiting))

    async def _run(self) -> None:
        while True:
            await self._come.wait()
            self._come.clear()
            while self._waiting:
                try:
                    await self._write()
                    self._set_away(None)
                except StoreAway as error:
                    self._set_away(error)
                    async with self._written:
                        self._written.notify_all()
                    await asyncio.sleep(1.0)

    async def _write(self) -> None:
        batch = self._waiting[:BATCH]
        with contextlib.suppress(OutOfOrder):
            await self._sink.ship(self._name, self._done, batch)
            await self._are_done(batch[-1][0])
            return
        # It has taken a batch and could not say so.
        await self._are_done(await self._sink.shipped(self._name))

    async def _are_done(self, number: int) -> None:
        self._done = number
        self._waiting = [each for each in self._waiting if each[0] > number]
        async with self._written:
            self._written.notify_all()

    def _set_away(self, error: StoreAway | None) -> None:
        if (error is not None) != self._away:
            self._away = error is not None
            if error is None:
                self._log.info("ledger_store_takes_entries_again")
            else:
                self._log.error("ledger_store_away", reason=str(error))


def _lose(entry: Entry, reason: str, metrics: LedgerMetrics, log: Log, seldom: Seldom) -> None:
    """Say that an entry is lost; the request's own line in the log has what was used."""
    metrics.lost.inc()
    if seldom.due("lost") is not None:
        log.error("ledger_entry_lost", request_id=entry.request_id, reason=reason)
