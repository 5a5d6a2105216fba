"""Every entry of every journal on the disk reaches the store once, in order."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.accounts.ledger import segment, shipper
from serving.accounts.ledger.journal import Journal
from serving.accounts.ledger.shipper import Shipper
from serving.observability.logs import Log
from serving.store.engine import StoreAway
from serving.store.entry import Numbered
from serving.store.ledger import OutOfOrder
from tests.unit.accounts.ledger.conftest import ENTRY, Make


class Store:
    """A store in memory that may be away, and may take a batch without saying so."""

    def __init__(self, fails: random.Random | None = None) -> None:
        self.numbers: dict[str, int] = {}
        self.taken: list[tuple[str, int]] = []
        self.away = False
        self._fails = fails

    async def shipped(self, journal: str) -> int:
        self._may_fail()
        return self.numbers.get(journal, 0)

    async def ship(self, journal: str, after: int, entries: Sequence[Numbered]) -> None:
        self._may_fail()
        if self.numbers.get(journal, 0) != after:
            raise OutOfOrder(f"has {self.numbers.get(journal, 0)}, not {after}")
        self.taken += [(journal, number) for number, _ in entries]
        self.numbers[journal] = entries[-1][0]
        self._may_fail()

    async def forget(self, journal: str) -> None:
        self._may_fail()
        self.numbers.pop(journal, None)

    def _may_fail(self) -> None:
        if self.away or (self._fails is not None and self._fails.random() < 0.3):
            raise StoreAway("away")


async def test_what_is_appended_is_shipped_once(tmp_path: Path, make: Make, log: Log) -> None:
    journal, store = Journal(tmp_path, segment_bytes=1500), Store()
    ship = Shipper(tmp_path, journal.name, store, log)
    number = 0
    for _ in range(5):
        for _ in range(20):
            number += 1
            await journal.append(make(number))
        assert ship.backlog() > 0
        await ship.ship_all()
        assert [n for _, n in store.taken] == list(range(1, number + 1))
        assert ship.backlog() == 0
        assert len(segment.segments(journal.folder)) == 1
    await journal.close()


async def test_the_store_is_away_and_comes_back(tmp_path: Path, make: Make, log: Log) -> None:
    journal, store = Journal(tmp_path), Store()
    ship = Shipper(tmp_path, journal.name, store, log)
    await journal.append(make(1))
    store.away = True
    with pytest.raises(StoreAway):
        await ship.ship_all()
    assert ship.away_s > 0
    await journal.append(make(2))
    store.away = False
    await ship.ship_all()
    assert ship.away_s == 0
    assert [n for _, n in store.taken] == [1, 2]
    await journal.close()


async def test_a_journal_that_nobody_holds_is_taken_over_shipped_and_removed(
    tmp_path: Path, make: Make, log: Log
) -> None:
    dead, own, store = Journal(tmp_path, segment_bytes=1000), Journal(tmp_path), Store()
    for n in range(1, 31):
        await dead.append(make(n))
    ship = Shipper(tmp_path, own.name, store, log)
    await ship.ship_all()
    assert store.taken == []  # its process lives
    await dead.close()
    await own.append(make(1))
    await ship.ship_all()
    assert store.taken == [(own.name, 1), *((dead.name, n) for n in range(1, 31))]
    assert not dead.folder.exists()
    assert dead.name not in store.numbers
    await own.close()


async def test_a_damaged_segment_is_kept_aside_and_the_rest_is_shipped(
    tmp_path: Path, make: Make, log: Log
) -> None:
    dead, own, store = Journal(tmp_path, segment_bytes=1000), Journal(tmp_path), Store()
    for n in range(1, 31):
        await dead.append(make(n))
    await dead.close()
    second = segment.segments(dead.folder)[1]
    numbers = [n for n, _ in segment.read(second)[0]]
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 0xFF
    second.write_bytes(data)
    await Shipper(tmp_path, own.name, store, log).ship_all()
    lost = set(range(1, 31)) - {n for _, n in store.taken}
    assert lost
    assert lost < set(numbers)
    (aside,) = tmp_path.glob(f".*{shipper.DAMAGED_SUFFIX}")
    assert aside.read_bytes() == data
    assert not dead.folder.exists()
    await own.close()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000), restarts=st.lists(st.integers(1, 12), max_size=6))
async def test_each_entry_arrives_once_whatever_fails_and_who_restarts(
    tmp_path_factory: pytest.TempPathFactory, log: Log, seed: int, restarts: list[int]
) -> None:
    root = tmp_path_factory.mktemp("journals")
    store = Store(random.Random(seed))
    expected: list[tuple[str, int]] = []
    for appended in (*restarts, 3):
        journal = Journal(root, segment_bytes=800)
        ship = Shipper(root, journal.name, store, log)
        for n in range(1, appended + 1):
            await journal.append(ENTRY)
            expected.append((journal.name, n))
            try:
                await ship.ship_all()
            except StoreAway:
                continue
        ship.close()
        await journal.close()
    last = Journal(root)
    ship = Shipper(root, last.name, store, log)
    for _ in range(1000):
        try:
            await ship.ship_all()
        except StoreAway:
            continue
        break
    assert sorted(store.taken) == sorted(expected)
    by_journal = [n for name, n in store.taken if name == expected[0][0]]
    assert by_journal == sorted(by_journal)
    assert os.listdir(root) == [last.name]
    await last.close()
