"""Leave to run one request, and what it used once it has ended.

This is where limits on accounts and the ledger will stand. Until then every request is admitted
and nothing is kept of it (`OpenDoor`), which costs a request nothing.
"""

from __future__ import annotations

from typing import Protocol

from serving.api.asked import Asked
from serving.router.auth import Caller
from serving.wire.messages import End


class Policy(Protocol):
    """Who may have what. Both functions may wait; neither is called while tokens flow."""

    async def admit(self, caller: Caller, account: str | None, asked: Asked) -> None:
        """Let a request pass, before its model is resolved.

        Raises:
            RateLimited, Forbidden: it may not pass.
        """

    async def settle(self, caller: Caller, account: str | None, asked: Asked, used: End) -> None:
        """Charge for what an admitted request used, as the engine counted it."""


class OpenDoor:
    """Admits everybody and charges nobody."""

    async def admit(self, caller: Caller, account: str | None, asked: Asked) -> None:
        """See `Policy.admit`."""

    async def settle(self, caller: Caller, account: str | None, asked: Asked, used: End) -> None:
        """See `Policy.settle`."""


class Ticket:
    """One admitted request, which is settled exactly once whatever its end."""

    __slots__ = ("_account", "_asked", "_caller", "_policy", "_settled")

    def __init__(self, policy: Policy, caller: Caller, account: str | None, asked: Asked) -> None:
        self._policy = policy
        self._caller = caller
        self._account = account
        self._asked = asked
        self._settled = False

    async def settle(self, used: End) -> None:
        """Settle; a no-op once it has been done. A request that ends well is settled before its
        last byte leaves, every other one when its end is known."""
        if not self._settled:
            self._settled = True
            await self._policy.settle(self._caller, self._account, self._asked, used)


class Admission:
    """Gives out tickets by one policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def admit(self, caller: Caller, account: str | None, asked: Asked) -> Ticket:
        """A ticket for one request; raises as `Policy.admit`."""
        await self._policy.admit(caller, account, asked)
        return Ticket(self._policy, caller, account, asked)
