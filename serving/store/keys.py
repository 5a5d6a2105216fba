"""Accounts, API keys and the audit of what was done to them, in SQL.

Every change counts the version `keys` up, first of all: see `schema.versions`. Routers ask for that
number, and for the rows above the one they have seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.store.engine import Store
from serving.store.key_rows import (
    AccountRow,
    AuditRow,
    Change,
    KeyRow,
    Missing,
    News,
    Over,
    SecretRow,
    Taken,
)
from serving.store.schema import accounts, api_key_secrets, api_keys, audit, versions

VERSION = "keys"
# A router that starts still tells these from unknown keys.
REMEMBERED = timedelta(days=30)
# Rows that are read at a time; others get their turn in between.
ROWS = 500


class KeyTables:
    """Reads and writes the tables. Every function raises `StoreAway` and `SchemaError` as
    `Store.reading`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # what routers ask

    async def news(self, since: int | None) -> News | None:
        """What has changed since version `since`, which None says is unknown; None if nothing has.
        A version that is lower than `since` is that of another database: all of it is news."""
        async with self._store.reading() as connection:
            query = select(versions.c.number).where(versions.c.name == VERSION)
            version = int((await connection.execute(query)).scalar_one())
            if version == since:
                return None
            whole = since is None or version < since
            found = select(accounts)
            keys = select(api_keys, *_SECRET).outerjoin(api_key_secrets).order_by(api_keys.c.id)
            if whole:
                old = datetime.now(UTC) - REMEMBERED
                for ended in (api_keys.c.revoked_at, api_keys.c.expires_at):
                    keys = keys.where(or_(ended.is_(None), ended > old))
            else:
                found = found.where(accounts.c.version > since)
                keys = keys.where(api_keys.c.version > since)
            return News(
                version,
                whole,
                [_account(row) async for row in _rows(connection, found)],
                [key async for key in _keys(connection, keys)],
            )

    async def note_use(self, used: Mapping[str, datetime]) -> None:
        """Write down when keys were last used; an earlier time changes nothing. It is no change
        that routers have to know of."""
        async with self._store.writing() as connection:
            for key_id, at in sorted(used.items()):
                earlier = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < at)
                row = update(api_keys).where(api_keys.c.id == key_id, earlier)
                await connection.execute(row.values(last_used_at=at))

    # accounts

    async def add_account(self, row: AccountRow, change: Change) -> None:
        """Add an account. Raises `Taken`."""
        try:
            async with self._store.writing() as connection:
                version = await _count_up(connection)
                values = {name: getattr(row, name) for name in AccountRow.__slots__}
                await connection.execute(insert(accounts).values(**values, version=version))
                detail = {"name": row.name, "enforcement": row.enforcement, **_quota(row)}
                if row.weight is not None:
                    detail["weight"] = row.weight
                await _write_down(connection, change, "account.create", row.id, detail)
        except IntegrityError:
            raise Taken(row.id) from None

    async def change_account(
        self, account_id: str, values: Mapping[str, Any], change: Change
    ) -> AccountRow:
        """Change fields of an account; how it is now. Raises `Missing`."""
        async with self._store.writing() as connection:
            version = await _count_up(connection)
            row = update(accounts).where(accounts.c.id == account_id)
            changed = await connection.execute(
                row.values(**values, version=version).returning(accounts)
            )
            if (found := changed.first()) is None:
                raise Missing("account", account_id)
            await _write_down(connection, change, "account.change", account_id, dict(values))
            return _account(found)

    async def account(self, account_id: str) -> AccountRow:
        """One account. Raises `Missing`."""
        async with self._store.reading() as connection:
            query = select(accounts).where(accounts.c.id == account_id)
            if (row := (await connection.execute(query)).first()) is None:
                raise Missing("account", account_id)
            return _account(row)

    async def accounts(self, *, skip: int, limit: int) -> tuple[list[AccountRow], int]:
        """Some accounts by ID, and how many there are."""
        async with self._store.reading() as connection:
            query = select(accounts).order_by(accounts.c.id).offset(skip).limit(limit)
            rows = (await connection.execute(query)).all()
            total = await connection.execute(select(func.count()).select_from(accounts))
            return [_account(row) for row in rows], total.scalar_one()

    # keys

    async def add_key(self, row: KeyRow, change: Change) -> None:
        """Add a key with its secrets. Raises `Missing` if its account does not exist."""
        async with self._store.writing() as connection:
            version = await _count_up(connection)
            if row.account_id is not None:
                query = select(accounts.c.id).where(accounts.c.id == row.account_id)
                if (await connection.execute(query)).first() is None:
                    raise Missing("account", row.account_id)
            values = {name: getattr(row, name) for name in KeyRow.__slots__ if name != "secrets"}
            await connection.execute(insert(api_keys).values(**values, version=version))
            for secret in row.secrets:
                await _add_secret(connection, row.id, secret)
            detail = {
                "account_id": row.account_id,
                "name": row.name,
                "role": row.role,
                "limits": dict(row.limits),
                **_quota(row),
                "expires_at": _iso(row.expires_at),
            }
            await _write_down(connection, change, "key.create", row.id, detail)

    async def change_key(self, key_id: str, values: Mapping[str, Any], change: Change) -> KeyRow:
        """Change fields of a key; how it is now. Raises `Missing`, `Over`."""
        async with self._store.writing() as connection:
            version = await _count_up(connection)
            await _standing(connection, key_id)
            row = update(api_keys).where(api_keys.c.id == key_id)
            await connection.execute(row.values(**values, version=version))
            detail = {k: _iso(v) if isinstance(v, datetime) else v for k, v in values.items()}
            await _write_down(connection, change, "key.change", key_id, detail)
            return await _key(connection, key_id)

    async def rotate_key(
        self, key_id: str, secret: SecretRow, overlap: timedelta, change: Change
    ) -> KeyRow:
        """Add a secret to a key, and let those that it has end after `overlap`, if they do not end
        sooner; how the key is now. Raises `Missing`, `Over`."""
        async with self._store.writing() as connection:
            version = await _count_up(connection)
            await _standing(connection, key_id)
            ends = secret.created_at + overlap
            of_key = api_key_secrets.c.key_id == key_id
            later = or_(api_key_secrets.c.expires_at.is_(None), api_key_secrets.c.expires_at > ends)
            old = update(api_key_secrets).where(of_key, later)
            await connection.execute(old.values(expires_at=ends))
            # Kept for a while, so that they are told from unknown ones.
            gone = api_key_secrets.c.expires_at < secret.created_at - REMEMBERED
            await connection.execute(delete(api_key_secrets).where(of_key, gone))
            await _add_secret(connection, key_id, secret)
            row = update(api_keys).where(api_keys.c.id == key_id)
            await connection.execute(row.values(version=version))
            detail = {"overlap_s": overlap.total_seconds()}
            await _write_down(connection, change, "key.rotate", key_id, detail)
            return await _key(connection, key_id)

    async def revoke_key(self, key_id: str, at: datetime, change: Change) -> KeyRow:
        """Take a key back, for ever; how it is now. One that was revoked before stays as it is.
        Raises `Missing`."""
        async with self._store.writing() as connection:
            version = await _count_up(connection)
            try:
                await _standing(connection, key_id)
            except Over:
                return await _key(connection, key_id)
            row = update(api_keys).where(api_keys.c.id == key_id)
            await connection.execute(row.values(revoked_at=at, version=version))
            await _write_down(connection, change, "key.revoke", key_id, {})
            return await _key(connection, key_id)

    async def has_key(self) -> bool:
        """True if there is a key that is not over."""
        good = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > datetime.now(UTC))
        query = select(api_keys.c.id).where(api_keys.c.revoked_at.is_(None), good).limit(1)
        async with self._store.reading() as connection:
            return (await connection.execute(query)).first() is not None

    async def key(self, key_id: str) -> KeyRow:
        """One key. Raises `Missing`."""
        async with self._store.reading() as connection:
            return await _key(connection, key_id)

    async def keys(
        self, *, account_id: str | None, skip: int, limit: int
    ) -> tuple[list[KeyRow], int]:
        """Some keys, of one account or of all, the newest first, and how many there are. Revoked
        ones are among them."""
        chosen = [] if account_id is None else [api_keys.c.account_id == account_id]
        page = select(api_keys.c.id).where(*chosen)
        page = page.order_by(api_keys.c.created_at.desc(), api_keys.c.id).offset(skip).limit(limit)
        query = select(api_keys, *_SECRET).outerjoin(api_key_secrets)
        query = query.where(api_keys.c.id.in_(page.scalar_subquery()))
        query = query.order_by(api_keys.c.created_at.desc(), api_keys.c.id)
        async with self._store.reading() as connection:
            found = [key async for key in _keys(connection, query)]
            count = select(func.count()).select_from(api_keys).where(*chosen)
            return found, (await connection.execute(count)).scalar_one()

    # audit

    async def audit(self, *, skip: int, limit: int) -> tuple[list[AuditRow], int]:
        """Some changes, the newest first, and how many there are."""
        query = select(audit).order_by(audit.c.number.desc()).offset(skip).limit(limit)
        async with self._store.reading() as connection:
            rows = (await connection.execute(query)).all()
            count = await connection.execute(select(func.count()).select_from(audit))
            return [AuditRow(**row._mapping) for row in rows], count.scalar_one()


_SECRET = (
    api_key_secrets.c.digest,
    api_key_secrets.c.created_at.label("secret_created_at"),
    api_key_secrets.c.expires_at.label("secret_expires_at"),
)


async def _count_up(connection: AsyncConnection) -> int:
    row = update(versions).where(versions.c.name == VERSION)
    changed = await connection.execute(
        row.values(number=versions.c.number + 1).returning(versions.c.number)
    )
    return int(changed.scalar_one())


async def _write_down(
    connection: AsyncConnection,
    change: Change,
    action: str,
    subject: str,
    detail: Mapping[str, Any],
) -> None:
    values = {
        "at": datetime.now(UTC),
        "actor": change.actor,
        "action": action,
        "subject": subject,
        "request_id": change.request_id,
        "detail": detail,
    }
    await connection.execute(insert(audit).values(**values))


async def _add_secret(connection: AsyncConnection, key_id: str, secret: SecretRow) -> None:
    values = {name: getattr(secret, name) for name in SecretRow.__slots__}
    await connection.execute(insert(api_key_secrets).values(**values, key_id=key_id))


async def _standing(connection: AsyncConnection, key_id: str) -> None:
    """Raises `Missing`, `Over`."""
    query = select(api_keys.c.revoked_at).where(api_keys.c.id == key_id)
    if (row := (await connection.execute(query)).first()) is None:
        raise Missing("key", key_id)
    if row.revoked_at is not None:
        raise Over(key_id)


async def _key(connection: AsyncConnection, key_id: str) -> KeyRow:
    query = select(api_keys, *_SECRET).outerjoin(api_key_secrets).where(api_keys.c.id == key_id)
    async for key in _keys(connection, query):
        return key
    raise Missing("key", key_id)


async def _rows(connection: AsyncConnection, query: Select[Any]) -> AsyncIterator[Row[Any]]:
    async with connection.stream(query) as result:
        async for rows in result.partitions(ROWS):
            for row in rows:
                yield row


async def _keys(connection: AsyncConnection, query: Select[Any]) -> AsyncIterator[KeyRow]:
    """The keys of a query in which the rows of one key, one for each secret, follow each other."""
    key: KeyRow | None = None
    async for row in _rows(connection, query):
        if key is None or key.id != row.id:
            if key is not None:
                yield key
            fields = {name: getattr(row, name) for name in KeyRow.__slots__ if name != "secrets"}
            key = KeyRow(**fields)
        if row.digest is not None:
            secret = SecretRow(row.digest, row.secret_created_at, row.secret_expires_at)
            key = replace(key, secrets=(*key.secrets, secret))
    if key is not None:
        yield key


def _quota(row: AccountRow | KeyRow) -> dict[str, Any]:
    """The quota of a new row for the audit, if it has one."""
    return {"quota": dict(row.quota)} if row.quota else {}


def _account(row: Row[Any]) -> AccountRow:
    return AccountRow(**{name: getattr(row, name) for name in AccountRow.__slots__})


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
