"""Takes the journals of this disk to the store, in order, each entry once.

The store keeps, for each journal, the number of the last entry that it has, and takes a batch and
the new number in one transaction, if the old number is the one that the batch follows. So a batch
may be sent again after any failure, and two who ship one journal cannot both succeed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from serving.accounts.ledger import segment
from serving.accounts.ledger.journal import lock
from serving.accounts.ledger.segment import Damaged
from serving.observability.logs import Log, Seldom
from serving.store.engine import StoreAway
from serving.store.entry import Numbered
from serving.store.ledger import OutOfOrder

BATCH = 500
EVERY_S = 1.0
# While the store is away it is asked again after twice the time, up to this, in seconds.
AWAY_MAX_S = 15.0
DAMAGED_SUFFIX = ".damaged"


class Sink(Protocol):
    """Where journals are shipped to: `serving.store.ledger.StoredLedger`."""

    async def shipped(self, journal: str) -> int: ...
    async def ship(self, journal: str, after: int, entries: Sequence[Numbered]) -> None: ...
    async def forget(self, journal: str) -> None: ...


class _Place:
    """How far one journal has been shipped."""

    def __init__(self, folder: Path, held: int | None) -> None:
        self.folder = folder
        self.held = held  # the lock of a journal that was taken over; None: our own
        self.number: int | None = None
        self.segment: Path | None = None
        self.offset = 0


class Shipper:
    """Ships the journal `own` and those that nobody holds any more.

    Args:
        root: the folder of all journals of this disk.
    """

    def __init__(self, root: Path, own: str, sink: Sink, log: Log) -> None:
        self._root = root
        self._sink = sink
        self._log = log
        self._seldom = Seldom(60.0)
        self._places = {own: _Place(root / own, None)}
        self._own = own
        self._away_since: float | None = None

    @property
    def away_s(self) -> float:
        """For how long the store has taken nothing, in seconds; 0 if it takes entries."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def backlog(self) -> int:
        """The bytes on this disk that this process has yet to ship."""
        total = 0
        for place in self._places.values():
            for path in segment.segments(place.folder):
                if place.segment is None or path >= place.segment:
                    with contextlib.suppress(OSError):
                        total += path.stat().st_size
                if path == place.segment:
                    total -= place.offset
        return max(0, total)

    async def run(self) -> None:
        """Ship until cancelled."""
        pause_s = EVERY_S
        while True:
            try:
                await self.ship_all()
                pause_s = EVERY_S
            except StoreAway as error:
                if pause_s == EVERY_S:
                    self._log.warning("ledger_store_away", reason=str(error))
                pause_s = min(2 * pause_s, AWAY_MAX_S)
            await asyncio.sleep(pause_s)

    async def ship_all(self) -> None:
        """Ship what is there now.

        Raises:
            StoreAway: the rest stays where it is.
        """
        await asyncio.to_thread(self._take_over)
        for name, place in list(self._places.items()):
            try:
                await self._ship(name, place)
            except StoreAway:
                if self._away_since is None:
                    self._away_since = time.monotonic()
                raise
            self._away_since = None

    def close(self) -> None:
        """Let go of the journals that were taken over."""
        for place in self._places.values():
            if place.held is not None:
                os.close(place.held)
        self._places.clear()

    # one journal

    def _take_over(self) -> None:
        """Take the journals whose processes are gone."""
        for folder in sorted(self._root.iterdir()):
            if folder.name.startswith(".") or folder.name in self._places or not folder.is_dir():
                continue
            with contextlib.suppress(OSError):  # another has shipped and removed it
                if (held := lock(folder)) is not None:
                    self._places[folder.name] = _Place(folder, held)
                    self._log.info("ledger_journal_taken_over", journal=folder.name)

    async def _ship(self, name: str, place: _Place) -> None:
        while True:
            # Looked for before: until there is a newer segment, this one may still grow.
            newer = await asyncio.to_thread(self._newer, place)
            if place.segment is None:
                if newer is None:
                    break
                place.segment, place.offset = newer, 0
            elif not await self._ship_batch(name, place, place.segment):
                if newer is None:
                    break
                if place.segment is not None:
                    place.segment.unlink(missing_ok=True)
                place.segment = None
        if place.held is not None:
            await asyncio.to_thread(shutil.rmtree, place.folder, True)
            os.close(place.held)
            del self._places[name]
            await self._sink.forget(name)
            self._log.info("ledger_journal_shipped", journal=name)

    async def _ship_batch(self, name: str, place: _Place, path: Path) -> bool:
        """Ship the next entries of a segment; False if there are none."""
        try:
            found, end = await asyncio.to_thread(segment.read, path, place.offset, BATCH)
        except Damaged as error:
            self._set_aside(place, path, error)
            return False
        if place.number is None:
            place.number = await self._sink.shipped(name)
        if new := [at for at in found if at[0] > place.number]:
            after, place.number = place.number, None  # unknown, until the store has said yes
            try:
                await self._sink.ship(name, after, new)
            except OutOfOrder as error:
                # It had taken a batch and we did not hear so, or has been restored from a backup.
                self._log.warning("ledger_out_of_order", journal=name, reason=str(error))
                place.segment = None
                return True
            place.number = new[-1][0]
        place.offset = end
        return bool(found)

    @staticmethod
    def _newer(place: _Place) -> Path | None:
        """The segment after the one that is being shipped."""
        present = segment.segments(place.folder)
        newer = [path for path in present if place.segment is None or path > place.segment]
        return newer[0] if newer else None

    def _set_aside(self, place: _Place, path: Path, error: Damaged) -> None:
        """Keep a damaged segment outside the journal, for somebody to look at. One that is still
        written stays: who takes over its journal will set it aside."""
        kept = path
        if place.held is not None or self._newer(place) is not None:
            kept = self._root / f".{place.folder.name}-{path.stem}{DAMAGED_SUFFIX}"
            path.rename(kept)
            place.segment = None
        if self._seldom.due(str(kept)) is not None:
            self._log.error("ledger_segment_damaged", reason=str(error), kept_as=str(kept))
