"""The accounts that this installation knows, as far as a request's path needs them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serving.catalogue.quota import Quota


class Enforcement(enum.StrEnum):
    """What happens to a completion that does not say whom it is charged to."""

    OFF = "off"
    WARN = "warn"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `enforcement` None: as the installation has it; `quota` None: no limit on what
    it uses. `weight` is its share of an engine's turns, as a multiple of the others'."""

    id: str
    enforcement: Enforcement | None = None
    disabled: bool = False
    quota: Quota | None = None
    weight: float = 1.0


class AccountBook:
    """Accounts by ID. `complete` is true if the accounts that are not in it do not exist; without a
    store any name is an account. `limited` is true once an account has had a quota."""

    def __init__(self) -> None:
        self.complete = False
        self.limited = False
        self._accounts: dict[str, Account] = {}
        self._listed: dict[str, Quota] = {}
        self._weights: dict[str, float] = {}

    def find(self, account: str) -> Account | None:
        """The account with an ID, if it is known."""
        return self._accounts.get(account)

    def quota_of(self, account: str) -> Quota | None:
        """How much an account may use; None: as much as it likes."""
        listed = self._listed.get(account)
        if listed is not None:
            return listed
        found = self._accounts.get(account)
        return None if found is None else found.quota

    def weight_of(self, account: str) -> float:
        """The share that an account has of an engine's turns, as a multiple of the others'."""
        listed = self._weights.get(account)
        if listed is not None:
            return listed
        found = self._accounts.get(account)
        return 1.0 if found is None else found.weight

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Set the weights that are not in the store, by account. They count before the store's."""
        self._weights = dict(weights)

    def set_listed(self, quotas: Mapping[str, Quota]) -> None:
        """Set the quotas that are not in the store, by account. They count before the store's."""
        self._listed = dict(quotas)
        self.limited = self.limited or bool(quotas)

    def update(self, accounts: Iterable[Account]) -> None:
        """Add accounts, or replace them."""
        for account in accounts:
            self._accounts[account.id] = account
            self.limited = self.limited or account.quota is not None

    def replace(self, accounts: Iterable[Account]) -> None:
        """Set all accounts there are."""
        self._accounts = {}
        self.update(accounts)
        self.complete = True
