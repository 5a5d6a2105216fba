"""The ledger of a router, put together."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from serving.accounts.ledger import books as books_module
from serving.accounts.ledger.books import Books
from serving.observability.logs import Log
from serving.observability.router_metrics import LedgerMetrics
from serving.settings import Settings
from serving.store.engine import Store, StoreAway
from serving.store.ledger import HOUR_S, StoredLedger
from serving.store.schema import usage_entries, usage_hours
from serving.store.upkeep import Upkeep
from tests.conftest import Eventually
from tests.unit.accounts.ledger.conftest import ENTRY

KEEPS_UP = "keep_up_ledger"
DAY_S = 86400

Start = Callable[..., Awaitable[Books]]


@pytest.fixture
async def start(tmp_path: Path, store: Store, log: Log) -> AsyncIterator[Start]:
    """`await start(usage_sums_days=5)`: the books of a router with these settings."""
    started: list[Books] = []

    async def begin(**settings: Any) -> Books:
        chosen = Settings(store_url="unused", ledger_dir=str(tmp_path / "journals"), **settings)
        books = Books(chosen, store, LedgerMetrics(CollectorRegistry()), log)
        started.append(books)
        await books.start()
        return books

    yield begin
    for books in started:
        await books.close()


async def ages(store: Store) -> tuple[list[int], list[int]]:
    """How many days ago the entries were that it has, and the hours of its sums."""
    async with store.reading() as connection:
        entries = (await connection.execute(select(usage_entries.c.ended_at))).scalars().all()
        hours = (await connection.execute(select(usage_hours.c.hour))).scalars().all()
    now = time.time()
    return (
        sorted(round((now - at.timestamp()) / DAY_S) for at in entries),
        sorted(round((now - hour * HOUR_S) / DAY_S) for hour in hours),
    )


@pytest.mark.parametrize("kind", ["journal", "store"])
async def test_what_is_older_than_the_settings_say_goes_by_itself(
    store: Store, start: Start, kind: str
) -> None:
    now = time.time()
    entries = [structs.replace(ENTRY, ended_at=now - days * DAY_S) for days in (6, 4, 2)]
    await StoredLedger(store).ship("j", 0, list(enumerate(entries, 1)))
    assert await ages(store) == ([2, 4, 6], [2, 4, 6])
    await start(ledger=kind, usage_entries_days=3, usage_sums_days=5)
    async with asyncio.timeout(10):
        while await ages(store) != ([2], [2, 4]):
            await asyncio.sleep(0.01)


async def test_old_entries_are_looked_after_again_when_the_store_is_back(
    start: Start, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    runs = 0

    async def run(self: Upkeep) -> dict[str, int]:
        nonlocal runs
        runs += 1
        if runs <= 2:
            raise StoreAway("nobody there")
        return {}

    monkeypatch.setattr(Upkeep, "run", run)
    monkeypatch.setattr(books_module, "UPKEEP_S", 0.001)
    await start()
    await eventually(lambda: runs > 4)


async def test_nothing_uses_the_store_when_it_has_closed(tmp_path: Path, log: Log) -> None:
    """A task that is cancelled a second time in the midst of SQLite's work never ends: its driver
    waits for a thread that has gone, and so would the process at its end."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    settings = Settings(store_url=url, ledger_dir=str(tmp_path / "journals"))
    store = Store(url)
    await store.prepare()
    other = sqlite3.connect(tmp_path / "store.sqlite3", check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    before = asyncio.all_tasks()
    books = Books(settings, store, LedgerMetrics(CollectorRegistry()), log)
    await books.start()
    await asyncio.sleep(0.1)  # it waits for the other one's transaction by now
    asyncio.get_running_loop().call_later(0.3, other.rollback)
    await books.close()
    assert not [task for task in asyncio.all_tasks() - before if task.get_name() == KEEPS_UP]
    await store.close()
    other.close()
