"""Accounts and keys in the store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from serving.store.engine import Store
from serving.store.key_rows import AccountRow, Change, KeyRow, Missing, Over, SecretRow, Taken
from serving.store.keys import KeyTables
from serving.store.schema import api_key_secrets, api_keys

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BY = Change("svk_admin", "req-1")


def account(name: str = "acme") -> AccountRow:
    return AccountRow(name, name.title(), None, False, NOW)


def key(name: str = "k1", account_id: str | None = None, **more: Any) -> KeyRow:
    secret = SecretRow(name.encode().ljust(32), NOW)
    limits = {"models": ["tiny*"]}
    fields: dict[str, Any] = {"created_at": NOW, "secrets": (secret,), **more}
    return KeyRow(name, account_id, f"key {name}", "use", limits, **fields)


@pytest.fixture
def tables(store: Store) -> KeyTables:
    return KeyTables(store)


async def test_what_is_written_is_read(tables: KeyTables) -> None:
    await tables.add_account(account(), BY)
    row = key(account_id="acme", expires_at=NOW + timedelta(days=1))
    await tables.add_key(row, BY)
    assert await tables.account("acme") == account()
    assert await tables.key("k1") == row


async def test_an_account_is_made_once(tables: KeyTables) -> None:
    await tables.add_account(account(), BY)
    with pytest.raises(Taken):
        await tables.add_account(account(), BY)


async def test_what_is_not_there(tables: KeyTables) -> None:
    for call in (
        tables.account("x"),
        tables.change_account("x", {"name": "y"}, BY),
        tables.key("x"),
        tables.change_key("x", {"name": "y"}, BY),
        tables.rotate_key("x", SecretRow(b"s", NOW), timedelta(), BY),
        tables.revoke_key("x", NOW, BY),
        tables.add_key(key(account_id="x"), BY),
    ):
        with pytest.raises(Missing, match="'x'"):
            await call
    assert await tables.keys(account_id=None, skip=0, limit=10) == ([], 0)
    assert await tables.audit(skip=0, limit=10) == ([], 0)


async def test_news_are_what_has_changed(tables: KeyTables) -> None:
    first = await tables.news(None)
    assert first is not None
    assert (first.version, first.whole, first.accounts, first.keys) == (0, True, [], [])
    assert await tables.news(0) is None

    await tables.add_account(account(), BY)
    for name in ("k1", "k2"):
        await tables.add_key(key(name, "acme"), BY)
    second = await tables.news(0)
    assert second is not None
    assert (second.version, second.whole) == (3, False)
    assert second.accounts == [account()]
    assert [found.id for found in second.keys] == ["k1", "k2"]

    await tables.revoke_key("k2", NOW, BY)
    third = await tables.news(3)
    assert third is not None
    assert (third.version, third.accounts) == (4, [])
    assert [(found.id, found.revoked_at) for found in third.keys] == [("k2", NOW)]
    assert await tables.news(4) is None


async def test_another_database_is_news_as_a_whole(tables: KeyTables) -> None:
    await tables.add_account(account(), BY)
    found = await tables.news(99)
    assert found is not None
    assert (found.version, found.whole, found.accounts) == (1, True, [account()])


async def test_keys_that_ended_long_ago_are_no_news(tables: KeyTables) -> None:
    now = datetime.now(UTC)
    for name, days in (("recent", 29), ("old", 31)):
        ended = now - timedelta(days=days)
        await tables.add_key(key(f"{name} revoked", revoked_at=ended), BY)
        await tables.add_key(key(f"{name} expired", expires_at=ended), BY)
    found = await tables.news(None)
    assert found is not None
    assert [each.id for each in found.keys] == ["recent expired", "recent revoked"]


async def test_news_of_many_keys(tables: KeyTables) -> None:
    names = [f"k{number:04}" for number in range(1100)]
    await tables.add_key(key("k"), BY)
    async with tables._store.writing() as connection:
        row = {"role": "use", "limits": {}, "created_at": NOW, "version": 2, "name": ""}
        await connection.execute(insert(api_keys), [{"id": name, **row} for name in names])
        secrets = [{"digest": n.encode(), "key_id": n, "created_at": NOW} for n in names]
        await connection.execute(insert(api_key_secrets), secrets)
    found = await tables.news(None)
    assert found is not None
    assert [(each.id, len(each.secrets)) for each in found.keys] == [
        ("k", 1),
        *((name, 1) for name in names),
    ]


async def test_changes_at_once_are_all_news(store_url: str) -> None:
    """Whoever has seen a number misses nothing that comes after it."""
    stores = [Store(store_url) for _ in range(3)]
    try:
        writers = [KeyTables(each) for each in stores]
        seen: dict[str, KeyRow] = {}
        version: int | None = None

        async def write(number: int) -> None:
            await writers[number % 2].add_key(key(f"k{number}"), BY)

        writing = asyncio.gather(*map(write, range(12)))
        while True:
            done = writing.done()
            news = await writers[2].news(version)
            if news is not None:
                assert version is None or news.version > version
                version = news.version
                seen.update((each.id, each) for each in news.keys)
            elif done:
                break
        await writing
        assert sorted(seen) == sorted(f"k{number}" for number in range(12))
        assert version == 12
    finally:
        for each in stores:
            await each.close()


async def test_rotation_keeps_the_old_secret_for_a_while(tables: KeyTables) -> None:
    await tables.add_key(key(), BY)
    later = NOW + timedelta(hours=1)
    row = await tables.rotate_key("k1", SecretRow(b"second", later), timedelta(hours=2), BY)
    ends = {secret.digest.strip(): secret.expires_at for secret in row.secrets}
    assert ends == {b"k1": NOW + timedelta(hours=3), b"second": None}
    # Again, before the first one has ended: it keeps its end, which is sooner.
    again = NOW + timedelta(hours=2)
    row = await tables.rotate_key("k1", SecretRow(b"third", again), timedelta(days=1), BY)
    ends = {secret.digest.strip(): secret.expires_at for secret in row.secrets}
    assert ends == {
        b"k1": NOW + timedelta(hours=3),
        b"second": again + timedelta(days=1),
        b"third": None,
    }
    # Secrets that ended long ago go.
    row = await tables.rotate_key("k1", SecretRow(b"4", NOW + timedelta(days=90)), timedelta(), BY)
    assert {secret.digest for secret in row.secrets} == {b"third", b"4"}


async def test_revoked_is_for_ever(tables: KeyTables) -> None:
    await tables.add_key(key(), BY)
    assert (await tables.revoke_key("k1", NOW, BY)).revoked_at == NOW
    assert (await tables.revoke_key("k1", NOW + timedelta(days=1), BY)).revoked_at == NOW
    with pytest.raises(Over):
        await tables.rotate_key("k1", SecretRow(b"s", NOW), timedelta(), BY)
    with pytest.raises(Over):
        await tables.change_key("k1", {"name": "x"}, BY)


async def test_fields_of_a_key_change(tables: KeyTables) -> None:
    await tables.add_key(key(expires_at=NOW), BY)
    values = {"name": "new", "role": "read", "limits": {"endpoints": ["/v1/*"]}, "expires_at": None}
    row = await tables.change_key("k1", values, BY)
    assert (row.name, row.role, row.limits, row.expires_at) == tuple(values.values())


async def test_fields_of_an_account_change(tables: KeyTables) -> None:
    await tables.add_account(account(), BY)
    row = await tables.change_account("acme", {"disabled": True, "enforcement": "warn"}, BY)
    assert (row.disabled, row.enforcement, row.name) == (True, "warn", "Acme")
    news = await tables.news(1)
    assert news is not None
    assert news.accounts == [row]


async def test_pages(tables: KeyTables) -> None:
    for name in ("a", "b", "c"):
        await tables.add_account(account(name), BY)
    rows, total = await tables.accounts(skip=1, limit=1)
    assert ([row.id for row in rows], total) == (["b"], 3)
    for number in range(4):
        of = "a" if number % 2 else None
        at = NOW + timedelta(minutes=number)
        await tables.add_key(key(f"k{number}", of, created_at=at), BY)
    await tables.rotate_key("k2", SecretRow(b"other", NOW), timedelta(), BY)
    keys, total = await tables.keys(account_id=None, skip=1, limit=2)
    assert ([row.id for row in keys], total) == (["k2", "k1"], 4)
    assert len(keys[0].secrets) == 2
    keys, total = await tables.keys(account_id="a", skip=0, limit=10)
    assert ([row.id for row in keys], total) == (["k3", "k1"], 2)


async def test_the_last_use_goes_forward_and_is_no_news(tables: KeyTables) -> None:
    await tables.add_key(key(), BY)
    later = NOW + timedelta(hours=1)
    await tables.note_use({"k1": later, "nobody": later})
    await tables.note_use({"k1": NOW})
    assert (await tables.key("k1")).last_used_at == later
    assert await tables.news(1) is None


async def test_every_change_is_written_down(tables: KeyTables) -> None:
    await tables.add_account(account(), BY)
    await tables.change_account("acme", {"disabled": True}, BY)
    await tables.add_key(key(account_id="acme"), BY)
    await tables.change_key("k1", {"expires_at": NOW}, BY)
    await tables.rotate_key("k1", SecretRow(b"s", NOW), timedelta(hours=1), BY)
    await tables.revoke_key("k1", NOW, BY)
    await tables.revoke_key("k1", NOW, BY)
    rows, total = await tables.audit(skip=0, limit=10)
    found = [(row.action, row.subject, dict(row.detail)) for row in reversed(rows)]
    assert found == [
        ("account.create", "acme", {"name": "Acme", "enforcement": None}),
        ("account.change", "acme", {"disabled": True}),
        (
            "key.create",
            "k1",
            {
                "account_id": "acme",
                "name": "key k1",
                "role": "use",
                "limits": {"models": ["tiny*"]},
                "expires_at": None,
            },
        ),
        ("key.change", "k1", {"expires_at": NOW.isoformat()}),
        ("key.rotate", "k1", {"overlap_s": 3600.0}),
        ("key.revoke", "k1", {}),
    ]
    assert total == 6
    assert {(row.actor, row.request_id) for row in rows} == {("svk_admin", "req-1")}
    assert (await tables.audit(skip=5, limit=10))[0] == rows[5:]


async def test_whether_there_is_a_key(tables: KeyTables) -> None:
    assert not await tables.has_key()
    await tables.add_key(key("over", expires_at=NOW - timedelta(days=1)), BY)
    await tables.add_key(key("revoked", revoked_at=NOW), BY)
    assert not await tables.has_key()
    await tables.add_key(key("good", expires_at=datetime.now(UTC) + timedelta(hours=1)), BY)
    assert await tables.has_key()
