"""The ledger of a router, put together."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from prometheus_client import CollectorRegistry

from serving.accounts.ledger.books import Books
from serving.observability.logs import Log
from serving.observability.router_metrics import LedgerMetrics
from serving.settings import Settings
from serving.store.engine import Store

KEEPS_UP = "keep_up_ledger"


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
