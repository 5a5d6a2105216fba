"""Admits requests, and settles what each has used.

Limits on accounts attach here, and the ledger of usage (`serving/accounts/`). `OpenDoor` admits
every request and keeps nothing, which costs a request no time.
"""

from __future__ import annotations

from typing import Protocol

from serving.accounts.caller import Caller
from serving.accounts.ledger.ledger import Ledger
from serving.api.asked import Asked
from serving.store.entry import Entry


class Policy(Protocol):
    """Decides which requests may run, and charges for them.

    Both functions may wait: neither is called while tokens flow.
    """

    async def admit(self, caller: Caller, account: str | None, asked: Asked) -> None:
        """Return if a request may run. Called before its model ID is resolved.

        Raises:
            RateLimited, Forbidden: the request may not run.
        """

    async def settle(self, entry: Entry) -> None:
        """Charge for what an admitted request used, as the engine counted it."""


class OpenDoor:
    """Admits everybody and charges nobody."""

    async def admit(self, caller: Caller, account: str | None, asked: Asked) -> None:
        """See `Policy.admit`."""

    async def settle(self, entry: Entry) -> None:
        """See `Policy.settle`."""


class Charged:
    """Admits everybody whose usage can be kept, and keeps it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def admit(self, caller: Caller, account: str | None, asked: Asked) -> None:
        """See `Policy.admit`. Raises `LedgerUnavailable`."""
        self._ledger.check()

    async def settle(self, entry: Entry) -> None:
        """See `Policy.settle`."""
        await self._ledger.add(entry)


class Ticket:
    """The permission to run one request, settled exactly once, however the request ends."""

    __slots__ = ("_policy", "_settled")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._settled = False

    async def settle(self, entry: Entry) -> None:
        """Charge for what the request used; a second call does nothing.

        A request that ends well is settled before its last byte leaves, any other one when its end
        is known.
        """
        if not self._settled:
            self._settled = True
            await self._policy.settle(entry)


class Admission:
    """Gives out tickets, as one policy allows."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def admit(self, caller: Caller, account: str | None, asked: Asked) -> Ticket:
        """A ticket for one request. Raises what `Policy.admit` raises."""
        await self._policy.admit(caller, account, asked)
        return Ticket(self._policy)
