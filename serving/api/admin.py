"""The admin API: accounts, their keys, and the audit of what was done to them.

`/v4/admin/...`, for keys with the role `admin`. Lists and pages are as everywhere below `/v4`. A
key's text is in the answer that makes it, or its new secret, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from serving.api.completion import MAX_ACCOUNT_ID
from serving.api.models import Query, parse_query
from serving.api.pages import Page
from serving.api.quota import QuotaChange
from serving.api.strict import read_strictly

# How long a rotated key's old secret goes on: a day, and 30 at most.
OVERLAP_S, MAX_OVERLAP_S = 86_400, 30 * 86_400

AccountId = Annotated[str, Meta(min_length=1, max_length=MAX_ACCOUNT_ID, pattern=r"^[!-~]+$")]
# PostgreSQL takes no NUL, and a terminal no control characters.
Name = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Role = Literal["read", "use", "admin"]
Mode = Literal["off", "warn", "enforce"]
# As in SERVING_ACCOUNT_WEIGHTS.
Weight = Annotated[float, Meta(ge=0.001, le=1000)]
Patterns = list[Annotated[str, Meta(min_length=1, max_length=256)]]
Moment = Annotated[datetime, Meta(tz=True)]


class NewAccount(Struct, forbid_unknown_fields=True):
    """The body of `POST /v4/admin/accounts`. `name` null: as `id`; `enforcement` null: as the
    installation has it; `weight` null: 1."""

    id: AccountId
    name: Name | None = None
    enforcement: Mode | None = None
    quota: QuotaChange | None = None
    weight: Weight | None = None


class AccountChange(Struct, forbid_unknown_fields=True):
    """The body of `PATCH /v4/admin/accounts/{account}`: the fields to change; `quota` null takes
    all limits on what is used away."""

    name: Name | UnsetType = UNSET
    enforcement: Mode | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET
    quota: QuotaChange | UnsetType | None = UNSET
    weight: Weight | UnsetType | None = UNSET


class NewKey(Struct, forbid_unknown_fields=True):
    """The body of `POST /v4/admin/keys`. Null, or left out: any account, no end, no limit."""

    name: Name = ""
    account_id: AccountId | None = None
    role: Role = "use"
    expires_at: Moment | None = None
    models: Patterns | None = None
    endpoints: Patterns | None = None
    networks: Patterns | None = None
    quota: QuotaChange | None = None
    priorities: Patterns | None = None


class KeyChange(Struct, forbid_unknown_fields=True):
    """The body of `PATCH /v4/admin/keys/{key}`: the fields to change; null takes a limit away."""

    name: Name | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET
    models: Patterns | UnsetType | None = UNSET
    endpoints: Patterns | UnsetType | None = UNSET
    networks: Patterns | UnsetType | None = UNSET
    quota: QuotaChange | UnsetType | None = UNSET
    priorities: Patterns | UnsetType | None = UNSET


class Rotation(Struct, forbid_unknown_fields=True):
    """The body of `POST /v4/admin/keys/{key}/rotate`: for how many seconds the old secret is good
    beside the new one."""

    overlap_s: Annotated[int, Meta(ge=0, le=MAX_OVERLAP_S)] = OVERLAP_S


class Nothing(Struct, forbid_unknown_fields=True):
    """The body of `POST /v4/admin/keys/{key}/revoke`."""


@dataclass(frozen=True, slots=True)
class Order:
    """What an administrator asks for. `name` is the ID in the path, `key_id` that of the key which
    asks."""

    request_id: str
    key_id: str
    name: str = ""
    query: bytes = b""
    body: bytes = b""


Json = dict[str, Any]


class Administration(Protocol):
    """Who does it. All functions answer with what is there now, and raise:

    Raises:
        InvalidField: a field has an impossible value.
        NotFound: there is no such account or key.
        Conflict: there is such an account, or the key was revoked.
        StoreUnavailable: the store is away.
    """

    async def accounts(self, query: Query) -> tuple[list[Json], int]:
        """A page of accounts, and how many there are."""

    async def account(self, account_id: str) -> Json: ...
    async def create_account(self, new: NewAccount, order: Order) -> Json: ...
    async def change_account(self, change: AccountChange, order: Order) -> Json: ...
    async def keys(self, query: Query, account_id: str | None) -> tuple[list[Json], int]:
        """A page of keys, of one account or of all, the newest first, and how many there are."""

    async def key(self, key_id: str) -> Json: ...
    async def create_key(self, new: NewKey, order: Order) -> Json: ...
    async def change_key(self, change: KeyChange, order: Order) -> Json: ...
    async def rotate_key(self, rotation: Rotation, order: Order) -> Json: ...
    async def revoke_key(self, order: Order) -> Json: ...
    async def audit(self, query: Query) -> tuple[list[Json], int]:
        """A page of what was done, the newest first, and how much that is."""


Manage = Callable[[Administration, Order], Awaitable[Page]]


async def accounts(to: Administration, order: Order) -> Page:
    """`GET /v4/admin/accounts`."""
    query = parse_query(order.query)
    return _list(*await to.accounts(query), query)


async def one_account(to: Administration, order: Order) -> Page:
    """`GET /v4/admin/accounts/{account}`."""
    return _page(await to.account(order.name))


async def create_account(to: Administration, order: Order) -> Page:
    """`POST /v4/admin/accounts`."""
    return _page(await to.create_account(read_strictly(_NEW_ACCOUNT, order.body), order))


async def change_account(to: Administration, order: Order) -> Page:
    """`PATCH /v4/admin/accounts/{account}`."""
    return _page(await to.change_account(read_strictly(_ACCOUNT_CHANGE, order.body), order))


async def keys(to: Administration, order: Order) -> Page:
    """`GET /v4/admin/keys`."""
    query = parse_query(order.query)
    named = parse_qs(order.query.decode("latin-1")).get("account_id", [None])[-1]
    return _list(*await to.keys(query, named), query)


async def one_key(to: Administration, order: Order) -> Page:
    """`GET /v4/admin/keys/{key}`."""
    return _page(await to.key(order.name))


async def create_key(to: Administration, order: Order) -> Page:
    """`POST /v4/admin/keys`."""
    return _page(await to.create_key(read_strictly(_NEW_KEY, order.body), order))


async def change_key(to: Administration, order: Order) -> Page:
    """`PATCH /v4/admin/keys/{key}`."""
    return _page(await to.change_key(read_strictly(_KEY_CHANGE, order.body), order))


async def rotate_key(to: Administration, order: Order) -> Page:
    """`POST /v4/admin/keys/{key}/rotate`."""
    return _page(await to.rotate_key(read_strictly(_ROTATION, order.body or b"{}"), order))


async def revoke_key(to: Administration, order: Order) -> Page:
    """`POST /v4/admin/keys/{key}/revoke`."""
    read_strictly(_NOTHING, order.body or b"{}")
    return _page(await to.revoke_key(order))


async def audit(to: Administration, order: Order) -> Page:
    """`GET /v4/admin/audit`."""
    query = parse_query(order.query)
    return _list(*await to.audit(query), query)


_NEW_ACCOUNT = msgspec.json.Decoder(NewAccount)
_ACCOUNT_CHANGE = msgspec.json.Decoder(AccountChange)
_NEW_KEY = msgspec.json.Decoder(NewKey)
_KEY_CHANGE = msgspec.json.Decoder(KeyChange)
_ROTATION = msgspec.json.Decoder(Rotation)
_NOTHING = msgspec.json.Decoder(Nothing)


def _page(body: Json) -> Page:
    return Page(json.dumps(body).encode())


def _list(items: list[Json], total: int, query: Query) -> Page:
    return _page(
        {
            "items": items,
            "current_page": query.page,
            "items_per_page": query.limit,
            "total_item_count": total,
        }
    )
