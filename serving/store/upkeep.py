"""Keeps the ledger from growing without end: tables for months to come, and none for those past.

Every router does this, seldom and at times of its own; one at a time has the work. On PostgreSQL
entries are in a table for each month. It is made ahead, and dropped whole when all of it is older
than what is kept. SQLite has one table, from which old entries are deleted in small pieces, so that
nobody waits long for the database.

A router of the version before migration 0005 knows nothing of the sums of all keys. What it brings
in while a new version is rolled out is missing in them until this has made them good.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, insert, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.store.engine import Store
from serving.store.ledger import HOUR_S, SUMS, TABLES
from serving.store.schema import usage_entries, usage_hours, usage_journals, usage_totals
from serving.store.url import POSTGRESQL
from serving.store.usage import month_of

MONTHS_AHEAD = 2
PIECE = 5000
# Of so many days the sums of all keys are compared with those of each. Who goes back to a program
# of before for longer leaves sums of all keys that are too small.
COMPARED_DAYS = 8
# A journal that nothing was shipped from for so long is gone, and so is its disk.
JOURNALS_DAYS = 90
# Of PostgreSQL's advisory lock that whoever does this holds: "upkeep" in ASCII.
LOCK = int.from_bytes(b"upkeep")
_PREFIX = "usage_entries_"
_REST = "usage_entries_rest"


class Upkeep:
    """Does all that is due.

    Args:
        entries_days: how long single entries are kept.
        sums_days: how long sums by the hour are kept.
    """

    def __init__(self, store: Store, *, entries_days: int, sums_days: int) -> None:
        self._store = store
        self._entries = timedelta(days=entries_days)
        self._sums = timedelta(days=sums_days)

    async def run(self, now: datetime | None = None) -> dict[str, int]:
        """Do it; how many tables were made and dropped, rows deleted, and hours made good.

        Raises:
            StoreAway: it will be done another time.
        """
        now = now or datetime.now(UTC)
        done = {"made": 0, "dropped": 0, "entries": 0, "sums": 0, "mended": 0}
        if self._store.kind == POSTGRESQL:
            async with self._store.writing() as connection:
                if not await _alone(connection):
                    return done
                done["made"] = await _make_months(connection, now)
                done["dropped"] = await _drop_months(connection, now - self._entries)
        done["entries"] = await self._delete_entries(now - self._entries)
        done["sums"] = await self._delete_sums(now)
        done["mended"] = await self._mend_totals(now)
        return done

    async def _delete_entries(self, before: datetime) -> int:
        table, total = usage_entries.c, 0
        if self._store.kind == POSTGRESQL:
            # What came too late for its month's table; the others are dropped whole.
            old = text(f"DELETE FROM {_REST} WHERE ended_at < :before")
            async with self._store.writing() as connection:
                return (await connection.execute(old, {"before": before})).rowcount
        key = (table.ended_at, table.journal, table.number)
        while True:
            async with self._store.writing() as connection:
                query = select(*key).where(table.ended_at < before).order_by(*key).limit(PIECE)
                found = (await connection.execute(query)).all()
                if not found:
                    return total
                last = found[-1].ended_at
                piece = delete(usage_entries).where(table.ended_at < before, table.ended_at <= last)
                total += (await connection.execute(piece)).rowcount

    async def _delete_sums(self, now: datetime) -> int:
        hour = int((now - self._sums).timestamp() // HOUR_S)
        journals = now - timedelta(days=JOURNALS_DAYS)
        async with self._store.writing() as connection:
            await connection.execute(
                delete(usage_journals).where(usage_journals.c.updated_at < journals)
            )
            total = 0
            for table, _ in TABLES:
                found = await connection.execute(delete(table).where(table.c.hour < hour))
                total += found.rowcount
            return total

    async def _mend_totals(self, now: datetime) -> int:
        since = int((now - timedelta(days=COMPARED_DAYS)).timestamp() // HOUR_S)
        async with self._store.reading() as connection:
            wrong = await _unequal(connection, since)
        if not wrong:
            return 0
        async with self._store.writing() as connection:
            if self._store.kind == POSTGRESQL:
                # Who adds to these sums comes to them last, with those of the keys written before:
                # all that has been added is seen now, and nothing is added meanwhile. An hour that
                # has been made good by another is made so again.
                await connection.execute(text("LOCK TABLE usage_totals IN EXCLUSIVE MODE"))
            keys = usage_totals.primary_key.columns.keys()
            columns = [usage_hours.c[name] for name in keys]
            sums = [func.sum(usage_hours.c[name]) for name in SUMS]
            right = select(*columns, *sums).where(usage_hours.c.hour.in_(wrong)).group_by(*columns)
            await connection.execute(delete(usage_totals).where(usage_totals.c.hour.in_(wrong)))
            await connection.execute(insert(usage_totals).from_select([*keys, *SUMS], right))
            return len(wrong)


async def _unequal(connection: AsyncConnection, since: int) -> list[int]:
    """The hours whose requests of all keys are not those of each together. One statement, so that
    what is committed meanwhile is in both or in none."""
    each, both = (
        select(table.c.hour, (sign * table.c.requests).label("requests")).where(
            table.c.hour >= since
        )
        for table, sign in ((usage_hours, 1), (usage_totals, -1))
    )
    found = union_all(each, both).subquery()
    query = select(found.c.hour).group_by(found.c.hour).having(func.sum(found.c.requests) != 0)
    return list((await connection.execute(query.order_by(found.c.hour))).scalars())


async def _alone(connection: AsyncConnection) -> bool:
    """True if nobody else does this now; the lock goes with the transaction."""
    query = text("SELECT pg_try_advisory_xact_lock(:lock)")
    return bool((await connection.execute(query, {"lock": LOCK})).scalar_one())


async def _make_months(connection: AsyncConnection, now: datetime) -> int:
    """Make the tables of this month and those ahead. One whose entries have already come stays in
    the table of the rest, which takes whatever has no month."""
    made, months = 0, await _months(connection)
    first, following = month_of(now)
    for _ in range(1 + MONTHS_AHEAD):
        if first not in months and not await _has_rest(connection, first, following):
            await connection.execute(
                text(
                    f"CREATE TABLE {_PREFIX}{first:%Y_%m} PARTITION OF usage_entries "
                    f"FOR VALUES FROM ('{first.isoformat()}') TO ('{following.isoformat()}')"
                )
            )
            made += 1
        first, following = month_of(following)
    return made


async def _drop_months(connection: AsyncConnection, before: datetime) -> int:
    dropped = 0
    for first, name in (await _months(connection)).items():
        if month_of(first)[1] <= before:
            await connection.execute(text(f"DROP TABLE {name}"))
            dropped += 1
    return dropped


async def _months(connection: AsyncConnection) -> dict[datetime, str]:
    """The tables of months, by their beginning."""
    query = text(
        "SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid "
        "WHERE inhparent = 'usage_entries'::regclass AND child.relname <> :rest"
    )
    names = (await connection.execute(query, {"rest": _REST})).scalars()
    return {
        datetime.strptime(name.removeprefix(_PREFIX), "%Y_%m").replace(tzinfo=UTC): name
        for name in names
    }


async def _has_rest(connection: AsyncConnection, since: datetime, until: datetime) -> bool:
    query = text(f"SELECT 1 FROM {_REST} WHERE ended_at >= :since AND ended_at < :until LIMIT 1")
    found = await connection.execute(query, {"since": since, "until": until})
    return found.first() is not None
