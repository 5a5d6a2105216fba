"""Admits requests, and settles what each has used.

The limits of accounts, keys and models attach here (`accounts/quota/`), and the ledger of usage.
`OpenDoor` admits every request and keeps nothing, which costs a request no time.
"""

from __future__ import annotations

from typing import Protocol

from serving.accounts.caller import Caller
from serving.accounts.ledger.ledger import Ledger
from serving.accounts.quota.hold import Hold, Used
from serving.accounts.quota.limiter import Limiter
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
        """Charge for what an admitted request used, as the engine counted it.

        It may be cancelled where it waits, so it has to keep the entry before it first does.
        """


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
    """The permission to run one request, settled exactly once, however the request ends. `hold` is
    what it holds of its limits, None if it has none."""

    __slots__ = ("_policy", "_settled", "hold")

    def __init__(self, policy: Policy, hold: Hold | None = None) -> None:
        self._policy = policy
        self._settled = False
        self.hold = hold

    async def settle(self, entry: Entry) -> None:
        """Charge for what the request used; a second call does nothing.

        A request that ends well is settled before its last byte leaves, any other one when its end
        is known.
        """
        if not self._settled:
            self._settled = True
            if self.hold is not None:
                self.hold.release(used_of(entry))
            await self._policy.settle(entry)


def used_of(entry: Entry) -> Used | None:
    """The tokens of a request that has ended, known or guessed; None if nobody has said any."""
    used = Used(entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens)
    return used if entry.usage_known or any(used) else None


class Admission:
    """Gives out tickets, as one policy and the limits allow."""

    def __init__(self, policy: Policy, limiter: Limiter | None = None) -> None:
        self._policy = policy
        self._limiter = limiter

    async def admit(
        self, caller: Caller, account: str | None, asked: Asked, body: bytes = b""
    ) -> Ticket:
        """A ticket for one request. Raises what `Policy.admit` and `Limiter.admit` raise."""
        await self._policy.admit(caller, account, asked)
        if self._limiter is None:
            return Ticket(self._policy)
        return Ticket(self._policy, self._limiter.admit(caller, account, asked.model, body))
