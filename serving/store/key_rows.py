"""What is read from the tables of accounts and keys, and written there; and why it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


class Missing(Exception):
    """There is no account or key with this ID. `what` is `account` or `key`."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"no {what} '{name}'")
        self.what, self.name = what, name


class Taken(Exception):
    """There is an account with this ID already."""


class Over(Exception):
    """The key was revoked, which is for ever."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account. `enforcement` None: as the installation's. `quota` is `Quota.stored`; None: no
    limit on what it uses. `weight` None: 1."""

    id: str
    name: str
    enforcement: str | None
    disabled: bool
    created_at: datetime
    quota: Mapping[str, Any] | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One secret of a key, by its digest; `expires_at` None: as the key."""

    digest: bytes
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key. `limits` is `KeyLimits.stored`, `quota` is `Quota.stored`; `last_used_at` is
    coarse."""

    id: str
    account_id: str | None
    name: str
    role: str
    limits: Mapping[str, Sequence[str]]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    secrets: tuple[SecretRow, ...] = ()
    quota: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something: a key's ID, or who sits at the machine; in which request."""

    actor: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change that was made."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    request_id: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class News:
    """What has changed since a version; `whole` if it is everything there is."""

    version: int
    whole: bool
    accounts: list[AccountRow]
    keys: list[KeyRow]
