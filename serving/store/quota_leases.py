"""The limits that routers share, in SQL: what each router has used and may use.

A rate is one time (`catalogue/rate.py` has the algorithm). Of a budget each router has a row
for each period: what it has used since the period began, and up to where it may go. Both are
counted from the beginning, so a renewal that is sent again changes nothing. A router that has not
renewed for `STALE_S` is gone: what it had used counts, and what it might have used does not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.catalogue import rate
from serving.catalogue.rate import SECOND
from serving.store.engine import Store
from serving.store.schema import quota_budgets, quota_rates
from serving.store.url import POSTGRESQL

STALE_S = 30.0


@dataclass(frozen=True, slots=True)
class RateAsk:
    """Charge what was used, and lease up to `want` more units of a limit by the minute."""

    pool: str
    limit: int
    charge: int
    want: int


@dataclass(frozen=True, slots=True)
class RateLease:
    """`granted` units; `room` more were left at `at`, in nanoseconds since 1970."""

    granted: int
    room: int
    at: int


@dataclass(frozen=True, slots=True)
class BudgetAsk:
    """This router has used `used` units of a budget since its period began, in seconds since 1970,
    and wants to have `want` units before it; a request that waits needs `need` of them."""

    pool: str
    period: int
    limit: int
    used: int
    want: int
    need: int = 0


@dataclass(frozen=True, slots=True)
class BudgetLease:
    """The router may use units up to `granted`, counted from the period's beginning. `others` is
    what the other routers have used, at `at`."""

    granted: int
    others: int
    at: int


class QuotaLeases:
    """Grants leases to one router. Everything raises `StoreAway` as `Store.writing`."""

    def __init__(self, store: Store, router: str, *, stale_s: float = STALE_S) -> None:
        self._store = store
        self._router = router
        self._stale = int(stale_s * SECOND)

    async def renew(
        self, rates: Sequence[RateAsk], budgets: Sequence[BudgetAsk], now: int | None = None
    ) -> tuple[list[RateLease], list[BudgetLease]]:
        """Leases for what is asked, in its order. A pool is asked for once at a time."""
        now = time.time_ns() if now is None else now
        async with self._store.writing() as connection:
            pools = [ask.pool for ask in rates] + [ask.pool for ask in budgets]
            await _lock(connection, self._store.kind, pools)
            return (
                await self._rates(connection, rates, now) if rates else [],
                await self._budgets(connection, budgets, now) if budgets else [],
            )

    async def used(self, budgets: Mapping[str, int]) -> dict[str, int]:
        """What all routers have used of budgets, by pool; given are their periods."""
        table = quota_budgets.c
        query = select(table.pool, table.period, func.sum(table.used))
        query = query.where(table.pool.in_(budgets)).group_by(table.pool, table.period)
        async with self._store.reading() as connection:
            rows = (await connection.execute(query)).all()
        found = {pool: int(used) for pool, period, used in rows if budgets[pool] == period}
        return {pool: found.get(pool, 0) for pool in budgets}

    async def _rates(
        self, connection: AsyncConnection, asks: Sequence[RateAsk], now: int
    ) -> list[RateLease]:
        query = select(quota_rates).where(quota_rates.c.pool.in_([ask.pool for ask in asks]))
        known = {row.pool: row.tat for row in (await connection.execute(query)).all()}
        leases, rows = [], []
        for ask in asks:
            tat, granted = grant_rate(known.get(ask.pool, 0), now, ask)
            leases.append(RateLease(granted, rate.room(tat, now, ask.limit), now))
            rows.append({"pool": ask.pool, "tat": tat})
        insert = _upsert(self._store.kind, quota_rates)
        await connection.execute(
            insert.on_conflict_do_update(
                index_elements=["pool"], set_={"tat": insert.excluded.tat}
            ),
            rows,
        )
        return leases

    async def _budgets(
        self, connection: AsyncConnection, asks: Sequence[BudgetAsk], now: int
    ) -> list[BudgetLease]:
        table = quota_budgets.c
        query = select(quota_budgets).where(table.pool.in_([ask.pool for ask in asks]))
        known: dict[tuple[str, int], list[Any]] = {}
        old = False
        periods = {ask.pool: ask.period for ask in asks}
        for row in await connection.execute(query):
            known.setdefault((row.pool, row.period), []).append(row)
            old = old or row.period < periods[row.pool]
        leases, rows = [], []
        for ask in asks:
            others = [r for r in known.get((ask.pool, ask.period), ()) if r.router != self._router]
            fresh = [row for row in others if row.renewed_at > now - self._stale]
            used = sum(row.used for row in others)
            held = used + sum(max(0, row.granted - row.used) for row in fresh)
            granted = grant_budget(ask, held, 1 + len(fresh))
            leases.append(BudgetLease(granted, used, now))
            key = {"pool": ask.pool, "period": ask.period, "router": self._router}
            # Who wants nothing is ending or not asked, and the others need not share with it.
            at = now if ask.want else 0
            rows.append(key | {"used": ask.used, "granted": granted, "renewed_at": at})
        insert = _upsert(self._store.kind, quota_budgets)
        changed = {name: insert.excluded[name] for name in ("used", "granted", "renewed_at")}
        key_columns = ["pool", "period", "router"]
        await connection.execute(
            insert.on_conflict_do_update(index_elements=key_columns, set_=changed), rows
        )
        if old:
            for ask in asks:
                gone = delete(quota_budgets).where(
                    table.pool == ask.pool, table.period < ask.period
                )
                await connection.execute(gone)
        return leases


def grant_rate(tat: int, now: int, ask: RateAsk) -> tuple[int, int]:
    """The time after the charge and a lease, and the lease."""
    charged = rate.after(tat, now, ask.charge, ask.limit)
    granted = max(0, min(ask.want, rate.room(charged, now, ask.limit)))
    return rate.after(charged, now, granted, ask.limit), granted


def grant_budget(ask: BudgetAsk, held: int, routers: int) -> int:
    """Up to where a router may go, where others hold so much: its part of what is left, or what a
    request needs, if there is as much."""
    left = ask.limit - held - ask.used
    if left <= 0:
        return ask.used
    return ask.used + min(ask.want, left, max(1, left // routers, ask.need))


async def _lock(connection: AsyncConnection, kind: str, pools: Iterable[str]) -> None:
    """Take the pools for this transaction, in one order for everybody. SQLite's writing transaction
    is the only one anyway."""
    if kind != POSTGRESQL:
        return
    digests = (blake2b(pool.encode(), digest_size=8, key=b"quota").digest() for pool in pools)
    numbers = sorted({int.from_bytes(digest, signed=True) for digest in digests})
    query = text("SELECT pg_advisory_xact_lock(n) FROM unnest(CAST(:numbers AS bigint[])) AS n")
    await connection.execute(query, {"numbers": numbers})


def _upsert(kind: str, table: Any) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if kind == POSTGRESQL else sqlite.insert(table)
