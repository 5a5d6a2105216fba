"""The ledger of a router, put together: where entries go, what keeps them from growing without end,
and how usage is read."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from serving.accounts.ledger.ledger import JournalLedger, Ledger, StoreLedger
from serving.api.usage import Place, Row, Wanted
from serving.errors import StoreUnavailable
from serving.observability.logs import Log
from serving.observability.router_metrics import LedgerMetrics
from serving.observability.tasks import background, end
from serving.settings import Settings
from serving.store.engine import Store, StoreAway
from serving.store.ledger import StoredLedger
from serving.store.upkeep import Upkeep
from serving.store.usage import By, Span, Usage

# How often a router looks after old entries, on average, in seconds.
UPKEEP_S = 3600.0


class Books:
    """The ledger of one router. `ledger` is None where none is kept, `usage` without a store.

    Raises:
        ValueError: the settings want a ledger, and there is no store for it.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store | None,
        metrics: LedgerMetrics,
        log: Log,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self._log = log
        self._rng = rng or random.Random()
        self._task: asyncio.Task[None] | None = None
        self.ledger: Ledger | None = None
        self.usage: StoredUsage | None = None
        self._upkeep: Upkeep | None = None
        kind = settings.ledger
        if store is None:
            if kind in ("journal", "store"):
                raise ValueError(f"SERVING_LEDGER={kind} needs a store; set SERVING_STORE_URL")
            return
        self.usage = StoredUsage(Usage(store))
        if kind == "off":
            return
        sink, refuses = StoredLedger(store), settings.ledger_full == "refuse"
        if kind == "store":
            self.ledger = StoreLedger(sink, refuses=refuses, metrics=metrics, log=log)
        else:
            folder = Path(settings.ledger_dir) if settings.ledger_dir else default_folder(store)
            self.ledger = JournalLedger(folder, sink, refuses=refuses, metrics=metrics, log=log)
        self._upkeep = Upkeep(
            store, entries_days=settings.usage_entries_days, sums_days=settings.usage_sums_days
        )

    async def start(self) -> None:
        """Open the ledger. Raises `OSError` where its folder cannot be written to."""
        if self.ledger is not None and self._upkeep is not None:
            await self.ledger.start()
            self._task = background(self._keep_up(self._upkeep), "keep_up_ledger", self._log)

    async def close(self) -> None:
        """Bring what is left to the store, as far as that goes within seconds."""
        if self._task is not None:
            await end(self._task)
        if self.ledger is not None:
            await self.ledger.close()

    async def _keep_up(self, upkeep: Upkeep) -> None:
        while True:
            try:
                done = await upkeep.run()
                if any(done.values()):
                    self._log.info("ledger_kept_up", **done)
            except StoreAway as error:
                self._log.warning("ledger_not_kept_up", reason=str(error))
            # At times of its own: all routers do it, and one would be enough.
            await asyncio.sleep(UPKEEP_S * self._rng.uniform(0.5, 1.5))


class StoredUsage:
    """Usage as the API reads it (`serving.api.usage.Ledger`)."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    async def sums(self, wanted: Wanted, by: Sequence[str], limit: int) -> list[Row]:
        """See there."""
        columns = [cast("By", "key_id" if name == "key" else name) for name in by]
        try:
            rows = await self._usage.sums(_span(wanted), columns, limit)
        except StoreAway as error:
            raise _unavailable(error) from error
        return [{("key" if name == "key_id" else name): row[name] for name in row} for row in rows]

    async def entries(self, wanted: Wanted, after: Place | None, limit: int) -> list[Row]:
        """See there."""
        try:
            return await self._usage.entries(_span(wanted), after, limit)
        except StoreAway as error:
            raise _unavailable(error) from error


def default_folder(store: Store) -> Path:
    """Where journals are if no setting says so: beside SQLite's file, or in the user's folder for
    the state of programs (specifications.freedesktop.org/basedir-spec)."""
    if store.kind == "sqlite":
        return Path(store.url.database or "").parent / "journals"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "serving" / "journals"


def _span(wanted: Wanted) -> Span:
    return Span(wanted.since, wanted.until, wanted.account, wanted.key, wanted.model)


def _unavailable(error: StoreAway) -> StoreUnavailable:
    return StoreUnavailable(f"usage cannot be read now: {error}", retry_after_s=5)
