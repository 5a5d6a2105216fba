"""What the admin API does (`serving/api/admin.py`), on the tables of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import UNSET

from serving.accounts.key_limits import NAMES, KeyLimits
from serving.accounts.quota.report import budgets_used
from serving.accounts.secret import digest_of, new_id, new_secret
from serving.api.admin import AccountChange, Json, KeyChange, NewAccount, NewKey, Order, Rotation
from serving.api.endpoints import ENDPOINTS
from serving.api.excerpt import excerpt
from serving.api.models import Query
from serving.api.quota import QuotaChange
from serving.catalogue.quota import Quota
from serving.errors import Conflict, InvalidField, NotFound, StoreUnavailable
from serving.store.engine import StoreAway
from serving.store.key_rows import (
    AccountRow,
    AuditRow,
    Change,
    KeyRow,
    Missing,
    Over,
    SecretRow,
    Taken,
)
from serving.store.keys import KeyTables
from serving.store.migrate import SchemaError
from serving.store.quota_leases import QuotaLeases


class Admin:
    """See `serving.api.admin.Administration`.

    Args:
        changed: called after each change, so that the router which made it knows of it at once.
    """

    def __init__(
        self, tables: KeyTables, leases: QuotaLeases, changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._tables = tables
        self._leases = leases
        self._changed = changed

    async def accounts(self, query: Query) -> tuple[list[Json], int]:
        """See `Administration`."""
        async with _told():
            rows, total = await self._tables.accounts(**_page(query))
        return [_account(row) for row in rows], total

    async def account(self, account_id: str) -> Json:
        """See `Administration`."""
        async with _told():
            row = await self._tables.account(_id("account", account_id))
            return _account(row, await budgets_used(self._leases, "account", row.id, row.quota))

    async def create_account(self, new: NewAccount, order: Order) -> Json:
        """See `Administration`."""
        name = new.name or new.id
        quota = _quota(None, new.quota)
        now = datetime.now(UTC)
        row = AccountRow(new.id, name, new.enforcement, False, now, quota, new.weight)
        async with _told():
            await self._tables.add_account(row, _by(order))
        await self._changed()
        return _account(row)

    async def change_account(self, change: AccountChange, order: Order) -> Json:
        """See `Administration`."""
        values = _given(change, ("name", "enforcement", "disabled", "weight"))
        async with _told():
            if change.quota is not UNSET:
                now = await self._tables.account(_id("account", order.name))
                values["quota"] = _quota(now.quota, change.quota)
            row = await self._tables.change_account(_id("account", order.name), values, _by(order))
        await self._changed()
        return _account(row)

    async def keys(self, query: Query, account_id: str | None) -> tuple[list[Json], int]:
        """See `Administration`."""
        if account_id is not None and not account_id.isprintable():
            return [], 0
        async with _told():
            rows, total = await self._tables.keys(account_id=account_id, **_page(query))
        return [_key(row) for row in rows], total

    async def key(self, key_id: str) -> Json:
        """See `Administration`."""
        async with _told():
            row = await self._tables.key(_id("key", key_id))
            return _key(row, await budgets_used(self._leases, "key", row.id, row.quota))

    async def create_key(self, new: NewKey, order: Order) -> Json:
        """See `Administration`. The answer has the key's text."""
        row, text = make_key(
            name=new.name,
            account_id=new.account_id,
            role=new.role,
            limits=_limits({name: getattr(new, name) for name in NAMES}),
            expires_at=_later(new.expires_at),
            quota=_quota(None, new.quota),
        )
        async with _told():
            try:
                await self._tables.add_key(row, _by(order))
            except Missing:
                message = f"'account_id': there is no account '{excerpt(str(new.account_id))}'"
                raise InvalidField(message, param="account_id") from None
        await self._changed()
        return {**_key(row), "key": text}

    async def change_key(self, change: KeyChange, order: Order) -> Json:
        """See `Administration`."""
        values = _given(change, ("name", "role", "expires_at"))
        limits = _given(change, NAMES)
        async with _told():
            if limits or change.quota is not UNSET:
                now = await self._tables.key(_id("key", order.name))
                if limits:
                    values["limits"] = _limits({**now.limits, **limits})
                if change.quota is not UNSET:
                    values["quota"] = _quota(now.quota, change.quota)
            row = await self._tables.change_key(_id("key", order.name), values, _by(order))
        await self._changed()
        return _key(row)

    async def rotate_key(self, rotation: Rotation, order: Order) -> Json:
        """See `Administration`. The answer has the key's new text."""
        text = new_secret(_id("key", order.name))
        secret = SecretRow(digest_of(text.encode()), datetime.now(UTC))
        overlap = timedelta(seconds=rotation.overlap_s)
        async with _told():
            row = await self._tables.rotate_key(order.name, secret, overlap, _by(order))
        await self._changed()
        return {**_key(row), "key": text}

    async def revoke_key(self, order: Order) -> Json:
        """See `Administration`."""
        async with _told():
            row = await self._tables.revoke_key(
                _id("key", order.name), datetime.now(UTC), _by(order)
            )
        await self._changed()
        return _key(row)

    async def audit(self, query: Query) -> tuple[list[Json], int]:
        """See `Administration`."""
        async with _told():
            rows, total = await self._tables.audit(**_page(query))
        return [_audit(row) for row in rows], total


def make_key(
    *,
    name: str,
    account_id: str | None = None,
    role: str = "use",
    limits: dict[str, list[str]] | None = None,
    expires_at: datetime | None = None,
    quota: dict[str, Any] | None = None,
) -> tuple[KeyRow, str]:
    """A new key, and its text."""
    key_id, now = new_id(), datetime.now(UTC)
    text = new_secret(key_id)
    secrets = (SecretRow(digest_of(text.encode()), now),)
    row = KeyRow(
        *(key_id, account_id, name, role, limits or {}, now),
        expires_at=expires_at,
        secrets=secrets,
        quota=quota,
    )
    return row, text


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """Says what the store raises in the API's errors."""
    try:
        yield
    except Missing as error:
        raise _missing(error) from None
    except Taken as error:
        raise Conflict(f"account '{excerpt(str(error))}' exists already", param="id") from None
    except Over as error:
        raise Conflict(f"key '{excerpt(str(error))}' was revoked, which is for ever") from None
    except (StoreAway, SchemaError) as error:
        raise StoreUnavailable("the store is away; the log says why") from error


def _missing(error: Missing) -> NotFound:
    return NotFound(f"no {error.what} '{excerpt(error.name)}'")


def _id(what: str, name: str) -> str:
    """The ID in a path. What cannot be one is not looked for: PostgreSQL takes no NUL.

    Raises:
        NotFound: it cannot be one.
    """
    if not (name.isascii() and name.isprintable()):
        raise _missing(Missing(what, name))
    return name


def _limits(given: dict[str, Any]) -> dict[str, list[str]]:
    """The limits as they are stored.

    Raises:
        InvalidField: one is not valid, or no endpoint fits.
    """
    try:
        limits = KeyLimits.of(given)
    except ValueError as error:
        name, _, problem = str(error).partition(": ")
        raise InvalidField(f"'{name}': {problem}", param=name) from None
    for path in limits.endpoints or ():
        if not any(KeyLimits(endpoints=(path,)).allow_endpoint(each.path) for each in ENDPOINTS):
            message = f"'endpoints': '{excerpt(path)}' fits no path of /openapi.json"
            raise InvalidField(message, param="endpoints")
    return limits.stored


def _quota(before: Mapping[str, Any] | None, change: QuotaChange | None) -> dict[str, Any] | None:
    """A quota as it is stored, after a change; None takes all of it away."""
    if change is None:
        return None
    return Quota.model_validate({**(before or {}), **change.given()}).stored or None


def _later(at: datetime | None) -> datetime | None:
    if at is not None and at <= datetime.now(UTC):
        raise InvalidField("'expires_at': lies in the past", param="expires_at")
    return at


def _given(change: AccountChange | KeyChange, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(change, name) for name in names}
    return {name: value for name, value in values.items() if value is not UNSET}


def _by(order: Order) -> Change:
    return Change(order.key_id, order.request_id)


def _page(query: Query) -> dict[str, int]:
    return {"skip": (query.page - 1) * query.limit, "limit": query.limit}


def _account(row: AccountRow, used: Json | None = None) -> Json:
    return {
        "id": row.id,
        "name": row.name,
        "enforcement": row.enforcement,
        "weight": row.weight,
        "disabled": row.disabled,
        "quota": row.quota,
        "used": used,
        "created_at": row.created_at.isoformat(),
    }


def _key(row: KeyRow, used: Json | None = None) -> Json:
    limits = KeyLimits.of(row.limits)
    return {
        "id": row.id,
        "name": row.name,
        "account_id": row.account_id,
        "role": row.role,
        "state": _state(row),
        **{name: getattr(limits, name) for name in NAMES},
        "quota": row.quota,
        "used": used,
        "created_at": row.created_at.isoformat(),
        "expires_at": _iso(row.expires_at),
        "revoked_at": _iso(row.revoked_at),
        "last_used_at": _iso(row.last_used_at),
        "secrets": [
            {"created_at": each.created_at.isoformat(), "expires_at": _iso(each.expires_at)}
            for each in sorted(row.secrets, key=lambda secret: secret.created_at)
        ],
    }


def _state(row: KeyRow) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at and row.expires_at <= datetime.now(UTC) else "active"


def _audit(row: AuditRow) -> Json:
    return {
        "number": row.number,
        "at": row.at.isoformat(),
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "request_id": row.request_id,
        "detail": row.detail,
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
