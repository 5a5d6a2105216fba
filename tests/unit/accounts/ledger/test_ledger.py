"""The ledger of a router: what it does while its disk or its store does not play along."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from serving.accounts.ledger import journal, ledger, segment
from serving.accounts.ledger.ledger import JournalLedger, StoreLedger
from serving.errors import LedgerUnavailable
from serving.observability.logs import Log
from serving.observability.router_metrics import LedgerMetrics
from serving.store.engine import StoreAway
from serving.store.entry import Entry, Numbered
from serving.store.ledger import OutOfOrder
from tests.conftest import Eventually
from tests.unit.accounts.ledger.conftest import Make


class Book:
    """A store in memory. `deaf`: it takes a batch and does not say so, once. Without `speaks` it
    neither takes anything nor says no."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.numbers: dict[str, int] = {}
        self.batches = 0
        self.away = self.deaf = False
        self.delay_s = 0.0
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def shipped(self, journal: str) -> int:
        return self.numbers.get(journal, 0)

    async def ship(self, journal: str, after: int, entries: Sequence[Numbered]) -> None:
        await asyncio.sleep(self.delay_s)
        await self.speaks.wait()
        if self.away:
            raise StoreAway("nobody there")
        if self.numbers.get(journal, 0) != after:
            raise OutOfOrder(journal)
        self.batches += 1
        self.entries += [entry for _, entry in entries]
        self.numbers[journal] = entries[-1][0]
        if self.deaf:
            self.deaf = False
            raise StoreAway("the connection broke")

    async def forget(self, journal: str) -> None:
        del self.numbers[journal]


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> LedgerMetrics:
    return LedgerMetrics(registry)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "AGAIN_S", 0.02)
    monkeypatch.setattr(ledger, "LAST_S", 0.3)


class FullDisk:
    """While `full`, the disk takes nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._write = segment.write
        monkeypatch.setattr(segment, "write", self.write)

    def write(self, descriptor: int, records: list[bytes]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._write(descriptor, records)


async def test_a_journals_entries_reach_the_store(
    tmp_path: Path, book: Book, metrics: LedgerMetrics, log: Log, make: Make,
    registry: CollectorRegistry,
) -> None:  # fmt: skip
    kept = JournalLedger(tmp_path, book, refuses=False, metrics=metrics, log=log)
    await kept.start()
    for n in range(5):
        kept.check()
        await kept.add(make(n))
    await kept.close()
    assert book.entries == [make(n) for n in range(5)]
    assert registry.get_sample_value("serving_ledger_add_seconds_count") == 5
    assert registry.get_sample_value("serving_ledger_unshipped_bytes") == 0


async def test_the_next_router_ships_what_one_could_not(
    tmp_path: Path, book: Book, metrics: LedgerMetrics, log: Log, make: Make
) -> None:
    book.away = True
    first = JournalLedger(tmp_path, book, refuses=True, metrics=metrics, log=log)
    await first.start()
    await first.add(make(1))
    first.check()  # a store that is away refuses nobody: the disk has it
    await first.close()
    assert book.entries == []
    book.away = False
    other = LedgerMetrics(CollectorRegistry())
    second = JournalLedger(tmp_path, book, refuses=True, metrics=other, log=log)
    await second.start()
    await second.close()
    assert book.entries == [make(1)]
    assert [folder for folder in tmp_path.iterdir() if first._journal.name in folder.name] == []  # type: ignore[union-attr]


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_full_disk(
    tmp_path: Path, book: Book, metrics: LedgerMetrics, log: Log, make: Make, refuses: bool,
    monkeypatch: pytest.MonkeyPatch, eventually: Eventually,
) -> None:  # fmt: skip
    disk = FullDisk(monkeypatch)
    kept = JournalLedger(tmp_path, book, refuses=refuses, metrics=metrics, log=log)
    await kept.start()
    disk.full = True
    await asyncio.wait_for(kept.add(make(1)), 5)  # its answer had come: it is not held up
    if refuses:
        with pytest.raises(LedgerUnavailable):
            kept.check()
    else:
        kept.check()
        await kept.add(make(2))
    disk.full = False
    assert kept._journal is not None
    await eventually(lambda: not kept._journal.refused)
    kept.check()
    await kept.close()
    assert book.entries == [make(n) for n in range(1, 2 if refuses else 3)]


async def test_what_is_kept_in_memory_is_bounded_and_what_is_lost_is_counted(
    tmp_path: Path, book: Book, metrics: LedgerMetrics, log: Log, make: Make,
    monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry,
) -> None:  # fmt: skip
    monkeypatch.setattr(ledger, "KEEP", 3)
    disk = FullDisk(monkeypatch)
    kept = JournalLedger(tmp_path, book, refuses=False, metrics=metrics, log=log)
    await kept.start()
    disk.full = True
    for n in range(5):
        await kept.add(make(n))
    with pytest.raises(LedgerUnavailable):
        kept.check()
    assert registry.get_sample_value("serving_ledger_entries_lost_total") == 2
    assert registry.get_sample_value("serving_ledger_entries_unwritten") == 3
    disk.full = False
    await kept.close()
    assert book.entries == [make(n) for n in range(3)]


async def test_entries_that_come_together_go_to_the_store_together(
    book: Book, metrics: LedgerMetrics, log: Log, make: Make
) -> None:
    kept = StoreLedger(book, refuses=True, metrics=metrics, log=log)
    await kept.start()
    book.delay_s = 0.02
    await asyncio.gather(*(kept.add(make(n)) for n in range(200)))
    assert sorted(entry.completion_tokens for entry in book.entries) == list(range(200))
    assert book.batches < 5
    await kept.close()


async def test_an_entry_is_in_the_store_when_add_returns(
    book: Book, metrics: LedgerMetrics, log: Log, make: Make
) -> None:
    kept = StoreLedger(book, refuses=True, metrics=metrics, log=log)
    await kept.start()
    for n in range(20):
        await kept.add(make(n))
        assert book.entries[-1] == make(n)
    await kept.close()


@pytest.mark.parametrize("refuses", [True, False])
async def test_the_store_is_away(
    book: Book, metrics: LedgerMetrics, log: Log, make: Make, refuses: bool,
    monkeypatch: pytest.MonkeyPatch, eventually: Eventually,
) -> None:  # fmt: skip
    kept = StoreLedger(book, refuses=refuses, metrics=metrics, log=log)
    await kept.start()
    book.away = True
    await asyncio.wait_for(kept.add(make(1)), 2)
    if refuses:
        with pytest.raises(LedgerUnavailable):
            kept.check()
    else:
        kept.check()
    await asyncio.wait_for(kept.add(make(2)), 1)
    book.away = False
    await eventually(lambda: len(book.entries) == 2)
    kept.check()
    await kept.close()


async def test_an_answer_does_not_wait_for_a_silent_store_without_end(
    book: Book, metrics: LedgerMetrics, log: Log, make: Make, monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:  # fmt: skip
    monkeypatch.setattr(ledger, "STORE_WAIT_S", 0.02)
    kept = StoreLedger(book, refuses=False, metrics=metrics, log=log)
    await kept.start()
    book.speaks.clear()
    await asyncio.wait_for(kept.add(make(1)), 5)
    assert book.entries == []
    book.speaks.set()
    await eventually(lambda: book.entries == [make(1)])
    await kept.close()


async def test_a_batch_that_the_store_took_in_silence_is_not_written_twice(
    book: Book, metrics: LedgerMetrics, log: Log, make: Make, eventually: Eventually
) -> None:
    kept = StoreLedger(book, refuses=False, metrics=metrics, log=log)
    await kept.start()
    book.deaf = True
    await kept.add(make(1))
    await kept.add(make(2))
    await eventually(lambda: len(book.entries) == 2)
    await kept.add(make(3))
    await kept.close()
    assert book.entries == [make(1), make(2), make(3)]


async def test_entries_that_are_lost_at_the_end_are_counted(
    book: Book, metrics: LedgerMetrics, log: Log, make: Make, registry: CollectorRegistry
) -> None:
    kept = StoreLedger(book, refuses=False, metrics=metrics, log=log)
    await kept.start()
    book.away = True
    await kept.add(make(1))
    await kept.close()
    assert registry.get_sample_value("serving_ledger_entries_lost_total") == 1
