"""Who sent a request: a key, its account, and what it may do."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from serving.accounts.key_limits import UNLIMITED, KeyLimits
from serving.api.excerpt import excerpt
from serving.catalogue.quota import Quota
from serving.errors import Forbidden

READING = ("GET", "HEAD")


class Role(enum.StrEnum):
    """What a key is for. `READ` may look and not change or use anything, `USE` may use the API,
    `ADMIN` may also manage accounts and keys."""

    READ = "read"
    USE = "use"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a known key. With `account` None the key may use any account. `limits` are what the
    key may reach, `quota` is how much of it."""

    key_id: str
    account: str | None
    role: Role = Role.USE
    limits: KeyLimits = UNLIMITED
    quota: Quota | None = None

    def check_endpoint(self, method: str, path: str, *, manages: bool = False) -> None:
        """Compare what is asked with what the key may do; `manages` is true for what only
        administrators may do.

        Raises:
            Forbidden: it may not.
        """
        if self.role is not Role.ADMIN and manages:
            raise Forbidden("this takes an API key with the role 'admin'")
        if self.role is Role.READ and method not in READING:
            raise Forbidden(f"this API key may only read, not {method}")
        if not self.limits.allow_endpoint(path):
            raise Forbidden(f"this API key may not be used at {path}")

    def check_priority(self, priority: str) -> None:
        """Compare the priority of a request with those that the key may use.

        Raises:
            Forbidden: it is none of them.
        """
        if not self.limits.allow_priority(priority):
            raise Forbidden(f"this API key may not send {priority} requests")

    def may_use(self, *models: str) -> bool:
        """True if the key may use one of these IDs, which stand for the same model."""
        return any(map(self.limits.allow_model, models))

    def no_model(self, model: str) -> Forbidden:
        """The refusal of a model ID. It is the same whether there is such a model or not."""
        return Forbidden(f"this API key may not use model '{excerpt(model)}'", param="model")


# The caller of an endpoint that needs no key.
ANYONE = Caller("", None)
