"""Old entries go, months to come are there, and nothing that is kept is lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs
from sqlalchemy import delete, select, text, update

from serving.store import upkeep
from serving.store.engine import Store
from serving.store.ledger import StoredLedger
from serving.store.schema import usage_entries, usage_hours, usage_totals
from serving.store.upkeep import Upkeep
from serving.store.usage import Span, Usage
from tests.unit.accounts.ledger.conftest import ENTRY

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


async def put(store: Store, *days_ago: float) -> None:
    ledger = StoredLedger(store)
    first = await ledger.shipped("j") + 1
    entries = [
        structs.replace(ENTRY, ended_at=(NOW - timedelta(days=days)).timestamp())
        for days in days_ago
    ]
    await ledger.ship("j", first - 1, list(enumerate(entries, first)))


async def ages(store: Store) -> list[int]:
    async with store.reading() as connection:
        found = (await connection.execute(select(usage_entries.c.ended_at))).scalars()
        return sorted(round((NOW - at).total_seconds() / 86400) for at in found)


async def tables(store: Store) -> set[str]:
    async with store.reading() as connection:
        return set((await upkeep._months(connection)).values())


async def test_what_is_too_old_is_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PIECE", 3)
    await put(store, *range(40), 35, 35, 35, 35, 35)
    care = Upkeep(store, entries_days=30, sums_days=34)
    done = await care.run(NOW)
    assert await ages(store) == list(range(31))
    assert done["entries"] == 14
    async with store.reading() as connection:
        hours = (await connection.execute(select(usage_hours.c.hour))).scalars().all()
    assert len(hours) == 35
    assert (await care.run(NOW))["entries"] == 0


async def test_postgresql_has_a_table_for_each_month(store: Store) -> None:
    if store.kind != "postgresql":
        pytest.skip("SQLite has one table")
    care = Upkeep(store, entries_days=60, sums_days=60)
    assert (await care.run(NOW))["made"] == 3
    assert await tables(store) == {f"usage_entries_{m}" for m in ("2026_11", "2026_12", "2027_01")}
    await put(store, 0, 1, 2, 40)
    assert (await care.run(NOW))["made"] == 0
    # Nothing is looked for where it cannot be: the month's own table is read, and no other.
    async with store.reading() as connection:
        plan = await connection.execute(
            text("EXPLAIN SELECT * FROM usage_entries WHERE ended_at >= '2026-11-05' "
                 "AND ended_at < '2026-11-06'")
        )  # fmt: skip
        read = "\n".join(plan.scalars())
    assert "usage_entries_2026_11" in read
    assert "2026_12" not in read
    later = await care.run(NOW + timedelta(days=100))
    assert later["dropped"] == 2
    assert later["entries"] == 1  # it was older than any month's table
    assert min(await tables(store)) == "usage_entries_2027_01"
    assert await ages(store) == []


async def test_a_month_whose_entries_came_before_its_table_loses_none(store: Store) -> None:
    await put(store, 0, 1)
    care = Upkeep(store, entries_days=30, sums_days=30)
    await care.run(NOW)
    await put(store, 2)
    assert await ages(store) == [0, 1, 2]
    await care.run(NOW + timedelta(days=29.5))
    assert await ages(store) == [0]


async def test_many_may_do_it_at_once(store: Store) -> None:
    await put(store, *range(60))
    care = Upkeep(store, entries_days=30, sums_days=30)
    await asyncio.gather(*(care.run(NOW) for _ in range(5)))
    await care.run(NOW)
    assert await ages(store) == list(range(31))


async def test_sums_of_all_keys_that_an_older_router_left_out_are_made_good(store: Store) -> None:
    """It adds to the others alone. Meanwhile routers of this version go on."""
    care = Upkeep(store, entries_days=60, sums_days=60)
    await put(store, 0, 1, 2, 2)
    assert (await care.run(NOW))["mended"] == 0
    hour = int(NOW.timestamp() // 3600)
    async with store.writing() as connection:
        await connection.execute(delete(usage_totals).where(usage_totals.c.hour == hour))
        day = usage_totals.c.hour == hour - 48
        await connection.execute(update(usage_totals).where(day).values(requests=1))
    mended, *_ = await asyncio.gather(care.run(NOW), *(put_as(store, f"k{n}") for n in range(4)))
    assert mended["mended"] == 2
    assert (await care.run(NOW))["mended"] == 0
    span = Span(NOW - timedelta(days=9), NOW + timedelta(hours=1))
    usage = Usage(store)
    for field in ("requests", "prompt_tokens", "total_s"):
        each = await usage.sums(span, ("hour", "key_id"))
        both = await usage.sums(span, ("hour",))
        found = {row["hour"]: row[field] for row in both}
        for at, value in found.items():
            assert value == pytest.approx(sum(row[field] for row in each if row["hour"] == at))
        assert sum(found.values()) == pytest.approx(sum(row[field] for row in each))
    assert sum(row["requests"] for row in await usage.sums(span)) == 4 + 4 * 20


async def put_as(store: Store, journal: str) -> None:
    ledger = StoredLedger(store)
    entry = structs.replace(ENTRY, ended_at=NOW.timestamp())
    for number in range(20):
        await ledger.ship(journal, number, [(number + 1, entry)])
