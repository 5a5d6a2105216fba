"""A router's copy of keys and accounts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from serving.accounts.admin import make_key
from serving.accounts.book import Account, AccountBook, Enforcement
from serving.accounts.caller import Caller
from serving.accounts.follow import Follower, entries_of_row
from serving.accounts.ring import KeyRing
from serving.accounts.secret import digest_of, new_secret
from serving.errors import KeyExpired, KeyRevoked, StoreUnavailable, Unauthenticated
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.store.engine import Store, StoreAway
from serving.store.key_rows import AccountRow, Change, SecretRow
from serving.store.keys import KeyTables
from serving.store.schema import accounts, api_key_secrets, api_keys, versions
from tests.stores import PostgreSQL

BY = Change("test")
SCOPE: dict[str, Any] = {"client": ("127.0.0.1", 1), "headers": []}


class Copy:
    """What one router knows."""

    def __init__(self, tables: KeyTables, log: Log) -> None:
        self.ring, self.book, self.metrics = KeyRing(), AccountBook(), RouterMetrics()
        self.follower = Follower(
            tables, self.ring, self.book, self.metrics, log, stale_s=60.0, poll_s=0.05
        )

    def ask(self, key: str) -> Caller:
        return self.ring.authenticate({b"x-api-key": key.encode()}, SCOPE)

    @property
    def up(self) -> float | None:
        return self.metrics.registry.get_sample_value("serving_store_up")


@pytest.fixture
def tables(store: Store) -> KeyTables:
    return KeyTables(store)


@pytest.fixture
async def copy(tables: KeyTables, log: Log) -> Copy:
    return Copy(tables, log)


async def test_keys_and_accounts_are_followed(copy: Copy, tables: KeyTables) -> None:
    await tables.add_account(AccountRow("acme", "Acme", "warn", False, datetime.now(UTC)), BY)
    row, text = make_key(name="k", account_id="acme")
    await tables.add_key(row, BY)
    with pytest.raises(StoreUnavailable, match="not read it yet"):
        copy.ask(text)
    assert copy.up == 0
    await copy.follower.look()
    assert copy.up == 1
    assert copy.ask(text) == Caller(row.id, "acme")
    assert copy.book.find("acme") == Account("acme", Enforcement.WARN)

    second = new_secret(row.id)
    secret = SecretRow(digest_of(second.encode()), datetime.now(UTC))
    await tables.rotate_key(row.id, secret, timedelta(), BY)
    await tables.change_account("acme", {"disabled": True, "enforcement": None}, BY)
    await copy.follower.look()
    assert copy.ask(second).key_id == row.id
    with pytest.raises(KeyExpired):
        copy.ask(text)
    assert copy.book.find("acme") == Account("acme", None, disabled=True)

    await tables.revoke_key(row.id, datetime.now(UTC), BY)
    await copy.follower.look()
    with pytest.raises(KeyRevoked):
        copy.ask(second)


async def test_another_database_replaces_all(copy: Copy, tables: KeyTables) -> None:
    kept, kept_text = make_key(name="kept")
    gone, gone_text = make_key(name="gone")
    for row in (kept, gone):
        await tables.add_key(row, BY)
    await tables.add_account(AccountRow("acme", "Acme", None, False, datetime.now(UTC)), BY)
    await copy.follower.look()
    assert copy.ask(gone_text)

    async with tables._store.writing() as connection:
        await connection.execute(delete(accounts))
        for column in (api_key_secrets.c.key_id, api_keys.c.id):
            await connection.execute(delete(column.table).where(column == gone.id))
        await connection.execute(update(versions).values(number=1))
    await copy.follower.look()
    assert copy.ask(kept_text)
    with pytest.raises(Unauthenticated, match="unknown"):
        copy.ask(gone_text)
    assert copy.book.find("acme") is None


async def test_uses_are_written_once_an_hour(copy: Copy, tables: KeyTables) -> None:
    row, text = make_key(name="k")
    await tables.add_key(row, BY)
    await copy.follower.look()
    await copy.follower.flush()
    assert (await tables.key(row.id)).last_used_at is None
    copy.ask(text)
    await copy.follower.flush()
    first = (await tables.key(row.id)).last_used_at
    assert first is not None
    assert datetime.now(UTC) - first < timedelta(minutes=1)
    copy.ask(text)
    await copy.follower.flush()
    assert (await tables.key(row.id)).last_used_at == first


async def test_a_key_of_the_future_lets_nobody_in(copy: Copy, tables: KeyTables) -> None:
    for change in ({"role": "emperor"}, {"limits": {"networks": ["everywhere"]}}):
        row, text = make_key(name="k")
        await tables.add_key(row, BY)
        await tables.change_key(row.id, change, BY)
        assert entries_of_row(await tables.key(row.id)) == ()
        await copy.follower.look()
        with pytest.raises(Unauthenticated):
            copy.ask(text)


class Flaky(KeyTables):
    """Tables of a store that can be taken away."""

    error: Exception | None = None

    async def news(self, since: int | None) -> Any:
        if self.error is not None:
            raise self.error
        return await super().news(since)


@pytest.fixture
async def flaky(store: Store) -> Flaky:
    return Flaky(store)


@pytest.mark.parametrize("error", [StoreAway("gone"), TimeoutError(), ZeroDivisionError()])
async def test_while_the_store_is_away_what_is_known_is_good_for_a_while(
    flaky: Flaky, log: Log, error: Exception
) -> None:
    row, text = make_key(name="k")
    await flaky.add_key(row, BY)
    copy = Copy(flaky, log)
    await copy.follower.look()
    flaky.error = error
    await copy.follower.look()
    assert copy.up == 0
    assert copy.ask(text)
    with pytest.raises(Unauthenticated, match="unknown"):
        copy.ask("sk-other")
    copy.follower.stale_s = 0.0
    await copy.follower.look()
    with pytest.raises(StoreUnavailable, match="too long"):
        copy.ask(text)
    flaky.error = None
    await copy.follower.look()
    assert copy.up == 1
    assert copy.ask(text)


async def test_it_follows_until_it_is_stopped(flaky: Flaky, log: Log, eventually: Any) -> None:
    copy = Copy(flaky, log)
    flaky.error = StoreAway("not yet")
    task = asyncio.create_task(copy.follower.run())
    try:
        await copy.follower.looked(5)
        row, text = make_key(name="k")
        await flaky.add_key(row, BY)
        with pytest.raises(StoreUnavailable):
            copy.ask(text)
        flaky.error = None
        await eventually(lambda: not copy.ring.away)
        assert copy.ask(text)
    finally:
        task.cancel()


async def test_a_router_starts_without_waiting_for_a_store_that_is_silent(
    flaky: Flaky, log: Log
) -> None:
    copy = Copy(flaky, log)
    await asyncio.wait_for(copy.follower.looked(0.05), 5)


async def test_postgresql_that_restarts(log: Log) -> None:
    server = PostgreSQL()
    store = Store(server.database())
    try:
        tables = KeyTables(store)
        row, text = make_key(name="k")
        await tables.add_key(row, BY)
        copy = Copy(tables, log)
        await copy.follower.look()
        server.stop()
        await copy.follower.look()
        assert copy.up == 0
        assert copy.ask(text)
        server.start()
        await tables.revoke_key(row.id, datetime.now(UTC), BY)
        await copy.follower.look()
        assert copy.up == 1
        with pytest.raises(KeyRevoked):
            copy.ask(text)
    finally:
        await store.close()
        server.close()
