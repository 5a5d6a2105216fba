"""Reads the ledger: sums by account, key, model and time, and single entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, Table, func, select, tuple_, union_all
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from serving.store.engine import Store
from serving.store.ledger import DAY_H, HOUR_S, SUMS
from serving.store.schema import usage_days, usage_entries, usage_hours, usage_totals

By = Literal["account", "key_id", "model", "served_model", "outcome", "hour", "day"]


@dataclass(frozen=True, slots=True)
class Span:
    """Whose usage is read, from `since` on and before `until`; None means all.

    Sums are by whole hours of UTC: those that begin in this time.
    """

    since: datetime
    until: datetime
    account: str | None = None
    key_id: str | None = None
    model: str | None = None


class Usage:
    """Everything raises `StoreAway`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def sums(
        self, span: Span, by: Sequence[By] = (), limit: int = 10_000
    ) -> list[dict[str, Any]]:
        """Sums, one row for each combination of `by` that there is, in the order of `by`.

        A row has the columns of `by` (`hour` and `day` as their beginning) and `requests`,
        `usage_unknown`, `prompt_tokens`, `cached_tokens`, `completion_tokens`, `images` and
        `total_s`.
        """
        parts = [_part(*part, span) for part in _parts(span, by)]
        found_in = union_all(*parts).subquery()
        columns = [_column(name, found_in.c) for name in by]
        totals = [func.coalesce(func.sum(found_in.c[name]), 0).label(name) for name in SUMS]
        query = select(*columns, *totals).limit(limit)
        if columns:
            query = query.group_by(*columns).order_by(*columns)
        async with self._store.reading() as connection:
            found = await connection.execute(query)
            return [_sum_row(dict(row)) for row in found.mappings()]

    async def entries(
        self, span: Span, after: tuple[datetime, str, int] | None = None, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """Entries in the order of their time, those behind `after` (the `ended_at`, `journal` and
        `number` of the last one that the caller has)."""
        table = usage_entries.c
        place = tuple_(table.ended_at, table.journal, table.number)
        query: Select[Any] = select(usage_entries).where(
            table.ended_at >= span.since, table.ended_at < span.until
        )
        for name in ("account", "key_id", "model"):
            if (value := getattr(span, name)) is not None:
                query = query.where(table[name] == value)
        if after is not None:
            query = query.where(place > after)
        query = query.order_by(table.ended_at, table.journal, table.number).limit(limit)
        async with self._store.reading() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]


def _parts(span: Span, by: Sequence[By]) -> list[tuple[Table, int, int]]:
    """Which sums to read, from which hour on and before which: those of all keys, if no account or
    key is asked for; else those of whole days, and those of hours at both ends."""
    since, until = _hour_from(span.since), _hour_from(span.until)
    if span.account is None and span.key_id is None and not {"account", "key_id"}.intersection(by):
        return [(usage_totals, since, until)]
    first, last = -(-since // DAY_H) * DAY_H, until // DAY_H * DAY_H
    if "hour" in by or first >= last:
        return [(usage_hours, since, until)]
    return [(usage_hours, since, first), (usage_days, first, last), (usage_hours, last, until)]


def _part(table: Table, since: int, until: int, span: Span) -> Select[Any]:
    query = select(table).where(table.c.hour >= since, table.c.hour < until)
    for name in ("account", "key_id", "model"):
        if (value := getattr(span, name)) is not None:
            query = query.where(table.c[name] == value)
    return query


def _column(name: By, columns: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[Any]:
    if name == "day":
        # Whole numbers: a division without a remainder on both databases.
        hour: ColumnElement[Any] = columns["hour"]
        return (hour - hour % DAY_H).label("day")
    column: ColumnElement[Any] = columns[name]
    return column


def _hour_from(moment: datetime) -> int:
    """The first hour that begins at `moment` or later."""
    return -int(-moment.timestamp() // HOUR_S)


def _sum_row(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("hour", "day"):
        if name in row:
            row[name] = datetime.fromtimestamp(row[name] * HOUR_S, UTC)
    for name in SUMS:
        # PostgreSQL's sum of whole numbers is a Decimal.
        row[name] = float(row[name]) if name == "total_s" else int(row[name])
    return row


def month_of(moment: datetime) -> tuple[datetime, datetime]:
    """The beginning of a moment's month (UTC), and of the next one."""
    first = moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first, (first + timedelta(days=32)).replace(day=1)
