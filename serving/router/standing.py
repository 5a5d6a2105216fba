"""Where a request stands among others that wait for the same engine.

Turns are fair between accounts; a request without an account stands for its key. Who waits is told
the engines by a name that says nothing to whoever reads it there.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.accounts.book import AccountBook
from serving.accounts.caller import Caller
from serving.accounts.key_limits import BATCH, INTERACTIVE, PRIORITIES
from serving.api.excerpt import excerpt
from serving.errors import InvalidRequest
from serving.router.spaces import CacheSpaces
from serving.wire.messages import Standing

PRIORITY_HEADER = b"x-priority"


class Standings:
    """Says where each request stands. All routers say the same of it, within two seconds of a
    change of its account's weight."""

    def __init__(self, book: AccountBook, spaces: CacheSpaces) -> None:
        self._book = book
        self._spaces = spaces

    def of(
        self, caller: Caller, account: str | None, headers: Mapping[bytes, bytes], *, batch: bool
    ) -> Standing:
        """The standing of a request. Its header says its priority, else its key's limits; `batch`
        is true if its body asks for the lower one.

        Raises:
            InvalidRequest: the header names no priority.
            Forbidden: the key may not use it.
        """
        named = headers.get(PRIORITY_HEADER, b"").decode("latin-1").strip().lower()
        if named and named not in PRIORITIES:
            raise InvalidRequest(
                f"header x-priority must be '{INTERACTIVE}' or '{BATCH}', not '{excerpt(named)}'"
            )
        if not named:
            named = BATCH if batch or not caller.limits.allow_priority(INTERACTIVE) else INTERACTIVE
        caller.check_priority(named)
        weight = self._book.weight_of(account) if account else 1.0
        return Standing(self._spaces.owner(caller, account), weight, named == BATCH)
