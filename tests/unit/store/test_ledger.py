"""The ledger's entries and sums in the store, on both databases."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import event, func, select

from serving.store.engine import Store
from serving.store.entry import Entry, Numbered
from serving.store.ledger import OutOfOrder, StoredLedger
from serving.store.schema import usage_entries, usage_hours, usage_journals
from tests.unit.accounts.ledger.conftest import ENTRY

HOUR = 1_764_460_800.0


def numbered(first: int, *entries: Entry) -> list[Numbered]:
    return list(enumerate(entries, first))


async def rows(store: Store, table: Any) -> list[dict[str, Any]]:
    async with store.reading() as connection:
        found = await connection.execute(select(table).order_by(*table.primary_key.columns))
        return [dict(row) for row in found.mappings()]


@pytest.fixture
def ledger(store: Store) -> StoredLedger:
    return StoredLedger(store)


async def test_entries_are_kept_whole_and_in_sums(store: Store, ledger: StoredLedger) -> None:
    other = structs.replace(ENTRY, account="other", usage_known=False, outcome="error")
    later = structs.replace(ENTRY, ended_at=ENTRY.ended_at + 3600, images=2, cached_tokens=4)
    assert await ledger.shipped("j") == 0
    await ledger.ship("j", 0, numbered(1, ENTRY, ENTRY, other))
    await ledger.ship("j", 3, numbered(4, ENTRY, later))
    assert await ledger.shipped("j") == 5
    kept = await rows(store, usage_entries)
    assert [row["number"] for row in kept] == [1, 2, 3, 4, 5]
    first = kept[0]
    assert first["ended_at"].timestamp() == ENTRY.ended_at
    expected = structs.asdict(ENTRY) | {"journal": "j", "number": 1, "ended_at": first["ended_at"]}
    assert first == expected
    sums = [
        (row["hour"], row["account"], row["outcome"], row["requests"], row["prompt_tokens"])
        for row in await rows(store, usage_hours)
    ]
    hour = int(HOUR // 3600)
    assert sums == [
        (hour, "acme", "ok", 3, 21),
        (hour, "other", "error", 1, 7),
        (hour + 1, "acme", "ok", 1, 7),
    ]
    last = (await rows(store, usage_hours))[-1]
    assert (last["images"], last["cached_tokens"], last["usage_unknown"]) == (2, 4, 0)


async def test_a_batch_that_does_not_follow_is_refused_whole(
    store: Store, ledger: StoredLedger
) -> None:
    await ledger.ship("j", 0, numbered(1, ENTRY, ENTRY))
    for after in (0, 1, 3):
        with pytest.raises(OutOfOrder, match="is at 2"):
            await ledger.ship("j", after, numbered(after + 1, ENTRY))
    assert len(await rows(store, usage_entries)) == 2
    assert (await rows(store, usage_hours))[0]["requests"] == 2
    await ledger.ship("k", 0, numbered(1, ENTRY))
    assert (await rows(store, usage_hours))[0]["requests"] == 3


async def test_two_who_ship_one_journal_write_each_entry_once(
    store: Store, ledger: StoredLedger
) -> None:
    async def ship_all(seed: int) -> None:
        rng, number = random.Random(seed), 0
        while number < 60:
            last = min(60, number + rng.randint(1, 9))
            try:
                await ledger.ship("j", number, numbered(number + 1, *[ENTRY] * (last - number)))
            except OutOfOrder:
                number = await ledger.shipped("j")
            else:
                number = last

    await asyncio.gather(*map(ship_all, range(4)))
    kept = await rows(store, usage_entries)
    assert [row["number"] for row in kept] == list(range(1, 61))
    assert (await rows(store, usage_hours))[0]["requests"] == 60


async def test_many_journals_at_once_add_up(store: Store, ledger: StoredLedger) -> None:
    kinds = [
        structs.replace(ENTRY, account=account, model=model)
        for account, model in itertools.product("abcd", "xyz")
    ]

    async def ship_all(name: int) -> None:
        rng = random.Random(name)
        for batch in range(10):
            some = rng.sample(kinds, k=len(kinds))
            first = batch * len(some)
            await ledger.ship(f"j{name}", first, numbered(first + 1, *some))

    await asyncio.gather(*map(ship_all, range(6)))
    async with store.reading() as connection:
        entries = (await connection.execute(select(func.count()).select_from(usage_entries))).one()
        sums = (await connection.execute(select(func.sum(usage_hours.c.requests)))).one()
    assert entries[0] == sums[0] == 6 * 10 * len(kinds)
    assert {row["requests"] for row in await rows(store, usage_hours)} == {60}


async def test_what_a_caller_wrote_keeps_no_batch_out(store: Store, ledger: StoredLedger) -> None:
    odd = structs.replace(ENTRY, model="a\0b" * 1000, account="é" * 5000, request_id="\0")
    await ledger.ship("j", 0, numbered(1, odd))
    (row,) = await rows(store, usage_entries)
    assert (len(row["model"]), len(row["account"])) == (512, 256)
    assert "\0" not in row["model"] + row["request_id"]


async def test_a_journal_that_is_gone_is_forgotten(store: Store, ledger: StoredLedger) -> None:
    await ledger.ship("j", 0, numbered(1, ENTRY))
    await ledger.forget("j")
    assert await rows(store, usage_journals) == []
    assert len(await rows(store, usage_entries)) == 1


async def test_a_batch_takes_no_statement_that_grows_with_it(
    store: Store, ledger: StoredLedger
) -> None:
    """Such a one is compiled anew for each batch, in the event loop of a router, where every stream
    waits for it."""
    await ledger.ship("j", 0, numbered(1, ENTRY))
    statements: list[str] = []

    def seen(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(store._engine.sync_engine, "before_cursor_execute", seen)
    each = (structs.replace(ENTRY, account=f"a{n}") for n in range(300))
    await ledger.ship("j", 1, numbered(2, *each))
    assert len(statements) < 10
    assert max(map(len, statements)) < 2000
