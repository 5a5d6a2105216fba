"""The ledger in the store: takes journals' entries, and keeps sums of them by the hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import structs
from sqlalchemy import String, Table, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.store.engine import Store
from serving.store.entry import Entry, Numbered
from serving.store.schema import (
    usage_days,
    usage_entries,
    usage_hours,
    usage_journals,
    usage_totals,
)

HOUR_S, DAY_H = 3600, 24
SUMS = (
    "requests",
    "usage_unknown",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "images",
    "total_s",
)
# The tables of sums, with how many hours each row is of.
TABLES = ((usage_hours, 1), (usage_days, DAY_H), (usage_totals, 1))
# What a text may have in its column. PostgreSQL refuses more, and NUL anywhere.
_LENGTHS = {
    column.name: column.type.length
    for column in usage_entries.columns
    if isinstance(column.type, String)
}


class OutOfOrder(Exception):
    """The store has another last entry of a journal than a batch follows."""


class StoredLedger:
    """Takes journals. It keeps, for each, the number of the last entry that it has.

    Everything raises `StoreAway`, after which it may have done what was asked or not.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def shipped(self, journal: str) -> int:
        """The number of the last entry of a journal that it has; 0 if none."""
        async with self._store.reading() as connection:
            return await _number(connection, journal)

    async def ship(self, journal: str, after: int, entries: Sequence[Numbered]) -> None:
        """Take entries that follow number `after`, all or none.

        Raises:
            OutOfOrder: it has another last entry of this journal.
        """
        now = datetime.now(UTC)
        async with self._store.writing() as connection:
            # First of all, and it locks the row: of two who ship a journal the second finds the
            # number that the first has written.
            last = entries[-1][0]
            if not await _moved(connection, journal, after, last, now):
                found = await _number(connection, journal)
                raise OutOfOrder(f"journal {journal} is at {found}, the batch follows {after}")
            rows = [_row(journal, number, entry) for number, entry in entries]
            await connection.execute(insert(usage_entries), rows)
            await add_sums(connection, self._store.kind, [entry for _, entry in entries])

    async def forget(self, journal: str) -> None:
        """Forget what `shipped` says of a journal that is gone."""
        async with self._store.writing() as connection:
            await connection.execute(
                delete(usage_journals).where(usage_journals.c.journal == journal)
            )


async def _number(connection: AsyncConnection, journal: str) -> int:
    query = select(usage_journals.c.number).where(usage_journals.c.journal == journal)
    return int((await connection.execute(query)).scalar() or 0)


async def _moved(
    connection: AsyncConnection, journal: str, after: int, last: int, now: datetime
) -> bool:
    """Set a journal's number from `after` to `last`; False if it is another than `after`."""
    if after:
        query = (
            update(usage_journals)
            .where(usage_journals.c.journal == journal, usage_journals.c.number == after)
            .values(number=last, updated_at=now)
        )
        return bool((await connection.execute(query)).rowcount)
    try:
        async with connection.begin_nested():
            await connection.execute(
                insert(usage_journals).values(journal=journal, number=last, updated_at=now)
            )
    except IntegrityError:
        return False
    return True


def _row(journal: str, number: int, entry: Entry) -> dict[str, Any]:
    row = {name: _stored(name, value) for name, value in structs.asdict(entry).items()}
    ended_at = datetime.fromtimestamp(entry.ended_at, UTC)
    return row | {"journal": journal, "number": number, "ended_at": ended_at}


def _stored(name: str, value: Any) -> Any:
    """A value as a column takes it. What a caller writes must not keep a batch out for ever."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")[: _LENGTHS[name]]


async def add_sums(connection: AsyncConnection, kind: str, entries: Iterable[Entry]) -> None:
    """Add entries to the tables of sums."""
    rows = _sums(entries)
    for table, hours in TABLES:
        await _add(connection, kind, table, _summed(rows, table, hours))


def _sums(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Rows for `usage_hours`."""
    keys = usage_hours.primary_key.columns.keys()
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in entries:
        hour = int(entry.ended_at // HOUR_S)
        key = (hour, *(_stored(name, getattr(entry, name)) for name in keys[1:]))
        row = found.setdefault(key, dict(zip(keys, key, strict=True)) | dict.fromkeys(SUMS, 0))
        row["requests"] += 1
        row["usage_unknown"] += not entry.usage_known
        for name in SUMS[2:]:
            row[name] += getattr(entry, name)
    return list(found.values())


def _summed(rows: Iterable[dict[str, Any]], table: Table, hours: int) -> list[dict[str, Any]]:
    """Rows of `usage_hours` as a table of sums over so many hours has them, in the order of their
    keys: whoever adds to two rows takes the locks in the same order as everybody else."""
    keys = table.primary_key.columns.keys()
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row["hour"] // hours * hours, *(row[name] for name in keys[1:]))
        into = found.setdefault(key, dict(zip(keys, key, strict=True)) | dict.fromkeys(SUMS, 0))
        for name in SUMS:
            into[name] += row[name]
    return [found[key] for key in sorted(found)]


async def _add(
    connection: AsyncConnection, kind: str, table: Table, rows: list[dict[str, Any]]
) -> None:
    query = _upsert(kind, table)
    sums = {name: table.c[name] + query.excluded[name] for name in SUMS}
    # A row at a time: a statement with the values of all would be compiled anew for each batch, in
    # the event loop, which takes longer than the database does.
    await connection.execute(
        query.on_conflict_do_update(index_elements=list(table.primary_key), set_=sums), rows
    )


def _upsert(kind: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that knows ON CONFLICT, which both databases have and write alike."""
    return postgresql.insert(table) if kind == "postgresql" else sqlite.insert(table)
