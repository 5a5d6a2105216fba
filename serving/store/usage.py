"""Reads the ledger: sums by account, key, model and time, and single entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, select, tuple_

from serving.store.engine import Store
from serving.store.ledger import HOUR_S, SUMS
from serving.store.schema import usage_entries, usage_hours

By = Literal["account", "key_id", "model", "served_model", "outcome", "hour", "day"]
DAY_H = 24


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
        columns = [_column(name) for name in by]
        totals = [func.coalesce(func.sum(usage_hours.c[name]), 0).label(name) for name in SUMS]
        query = select(*columns, *totals).where(*_within(span)).limit(limit)
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


def _column(name: By) -> ColumnElement[Any]:
    if name == "day":
        # Whole numbers: a division without a remainder on both databases.
        return (usage_hours.c.hour - usage_hours.c.hour % DAY_H).label("day")
    return usage_hours.c[name]


def _within(span: Span) -> list[ColumnElement[bool]]:
    table = usage_hours.c
    found = [table.hour >= _hour_from(span.since), table.hour < _hour_from(span.until)]
    for name in ("account", "key_id", "model"):
        if (value := getattr(span, name)) is not None:
            found.append(table[name] == value)
    return found


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
