"""The accounts that this installation knows, as far as a request's path needs them."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Enforcement(enum.StrEnum):
    """What happens to a completion that does not say whom it is charged to."""

    OFF = "off"
    WARN = "warn"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `enforcement` None: as the installation has it."""

    id: str
    enforcement: Enforcement | None = None
    disabled: bool = False


class AccountBook:
    """Accounts by ID. `complete` is true if the accounts that are not in it do not exist; without a
    store any name is an account."""

    def __init__(self) -> None:
        self.complete = False
        self._accounts: dict[str, Account] = {}

    def find(self, account: str) -> Account | None:
        """The account with an ID, if it is known."""
        return self._accounts.get(account)

    def update(self, accounts: Iterable[Account]) -> None:
        """Add accounts, or replace them."""
        self._accounts.update((account.id, account) for account in accounts)

    def replace(self, accounts: Iterable[Account]) -> None:
        """Set all accounts there are."""
        self._accounts = {account.id: account for account in accounts}
        self.complete = True
